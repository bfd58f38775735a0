"""Files that somebody else may have put there: read whole, but only so much, and only if they are files.

A bundle folder is copied, mounted and edited by hand. A FIFO in it would keep its reader waiting for ever, a device
never ends, a symbolic link may lead to any secret of the machine: neither is read, nor waited for. And what makes a
file of our own last: `sync`."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Unreadable(Exception):
    """This is not a file to be read; the message is one line that names it and the fault."""


def read(file: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Never blocks on what is no such file.

    A symbolic link is followed only within the file's folder, which is how Kubernetes mounts a ConfigMap.
    Raises: Unreadable."""
    try:
        folder, target = os.path.realpath(file.parent), os.path.realpath(file)
        if os.path.commonpath((folder, target)) != folder:
            raise Unreadable(f"{file}: is a symbolic link that leads out of its folder")
        # Non-blocking: opening a FIFO would wait for a writer. It changes nothing for a file.
        descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            told = os.fstat(descriptor)
            if not stat.S_ISREG(told.st_mode):
                raise Unreadable(f"{file}: is not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                data = stream.read(min(told.st_size, limit) + 1)  # memory for as much is taken before it is read
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unreadable(f"{file}: {error.strerror or error}") from error
    if len(data) > limit:
        raise Unreadable(f"{file}: larger than {limit:,} bytes, which none of ours is")
    return data


def sync(folder: Path) -> None:
    """Let a rename in this folder outlive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
