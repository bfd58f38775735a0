"""A folder of versions: several bundles beside each other, and two small text files that say which of them count.

    models/
      2026-11-23T120000Z-3fa9c1/    a bundle; any plain folder name will do
      2026-11-30T120000Z-77b0de/
      current                       the version that predicts, then what was active before it, one folder name a line
      shadow                        the candidate: one folder name

A pointer is replaced whole (written aside, synced, renamed): a reader sees the old one or the new one. Its lines are
names of folders directly inside: never paths, never symbolic links, so that a pointer cannot lead out of the folder.
Without `current` the bundle with the greatest version counts. Services follow the pointers while they run
(consumer/models.py); docs/decisions/models.md says why it is files."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from model import bundle
from model.bundle import MANIFEST, BadBundle
from model.files import Unreadable, read, sync

if TYPE_CHECKING:
    from model.manifest import Manifest

CURRENT, SHADOW = "current", "shadow"
KEPT = 20  # lines of `current`: how far a rollback can go
LARGEST = 64 * 1024  # bytes of a pointer; ours are below 6 KiB
# One part of a path, that does not hide, in one line of UTF-8.
_NAME = re.compile(r"(?!\s)[^./\\\x00-\x1f\x7f\ud800-\udfff][^/\\\x00-\x1f\x7f\ud800-\udfff]{0,199}(?<!\s)")


class BadPointer(BadBundle):
    """A pointer, or what it names, cannot be used; one line that names file, fault and way on."""


@dataclass(frozen=True)
class Version:
    """One bundle of the folder. `fault` says why it cannot be used; then there may be no manifest."""

    name: str  # of its folder
    path: Path
    manifest: Manifest | None
    fault: str
    current: bool
    shadow: bool

    @property
    def version(self) -> str:
        """The bundle's own name; that of its folder if it cannot be read."""
        return self.manifest.version if self.manifest is not None else self.name


def resolve(path: Path) -> Path:
    """The bundle folder that counts: `path` itself if it holds a bundle, else what `current` names, else the greatest.

    Raises: BadBundle, one line. That the bundle is whole is for bundle.load to say."""
    if holds_bundle(path):
        return path
    names = history(path)
    if names:
        return _inside(path, CURRENT, names[0])
    found = [(_version(folder), folder.name, folder) for folder in _folders(path)]
    if not found:
        raise BadBundle(f"{path}: neither a bundle ({MANIFEST} is missing) nor a folder of bundles")
    return max(found)[2]


def resolved_or_none(path: Path) -> Path | None:
    """As `resolve`, but None where nothing counts."""
    with contextlib.suppress(BadBundle):
        return resolve(path)
    return None


def candidate(path: Path) -> Path | None:
    """The bundle folder that `shadow` names; None without one. Raises: BadPointer."""
    if not _is_folder(path) or holds_bundle(path):
        return None
    names = _lines(path, SHADOW)
    return _inside(path, SHADOW, names[0]) if names else None


def holds_bundle(path: Path) -> bool:
    """Whether `path` is a bundle, broken ones included. Raises: BadBundle if there is no such folder."""
    if not _is_folder(path):
        raise BadBundle(f"{path}: there is no such folder")
    return os.path.lexists(path / MANIFEST)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # no permission, a name too long
        raise BadBundle(f"{path}: {error.strerror}") from error


def history(path: Path) -> list[str]:
    """The lines of `current`, newest activation first; empty without one. Raises: BadPointer."""
    return _lines(path, CURRENT)


def versions(path: Path) -> list[Version]:
    """Every bundle of the folder, checked in full but for its golden outputs; the newest version first.

    For a path that is itself a bundle, that one. Raises: BadBundle if it is neither."""
    folders = [path] if holds_bundle(path) else _folders(path)
    if not folders:
        resolve(path)  # which tells what is missing
    current, shadowed = resolved_or_none(path), None
    with contextlib.suppress(BadBundle):
        shadowed = candidate(path)
    found = []
    for folder in folders:
        manifest, fault = None, ""
        try:
            manifest = bundle.load(folder).manifest
        except BadBundle as error:
            fault = str(error)
        found.append(Version(folder.name, folder, manifest, fault, folder == current, folder == shadowed))
    return sorted(found, key=lambda one: (one.version, one.name), reverse=True)


def named(path: Path, text: str) -> Version:
    """The one bundle whose folder is called `text`, or whose version begins with it.

    Raises: BadBundle if there is none, or more than one."""
    everyone = versions(path)
    found = (
        [one for one in everyone if one.name == text]
        or [one for one in everyone if one.version == text]
        or [one for one in everyone if text and (one.version.startswith(text) or one.name.startswith(text))]
    )
    if len(found) == 1:
        return found[0]
    several = ", ".join(one.name for one in found[:5])
    raise BadBundle(
        f"{path}: {len(found)} versions are called {text!r}: {several}"
        if found
        else f"{path}: no version is called {text!r}"
    )


def activate(path: Path, name: str) -> None:
    """Let the bundle in the folder `name` be the active one; a second time changes nothing.

    The caller has verified it. Raises: BadBundle, OSError."""
    check_is_folder_of_versions(path)
    target = _inside(path, CURRENT, name)
    names = history(path)
    if not names:  # what predicted without a pointer is where a rollback leads
        counted = resolved_or_none(path)
        names = [counted.name] if counted is not None and counted != target else []
    if names[:1] != [name]:
        names = [name, *names]
    _write(path, CURRENT, names[:KEPT])


def before(path: Path) -> Path:
    """The bundle folder that `rollback` would make the active one. Raises: BadBundle if there is none."""
    check_is_folder_of_versions(path)
    names = history(path)
    if len(names) < 2:
        raise BadPointer(f"{path / CURRENT}: names nothing that was active before; `activate` the version you want")
    return _inside(path, CURRENT, names[1])


def rollback(path: Path) -> None:
    """Let what was active before be the active one again. Raises: BadBundle, OSError."""
    before(path)
    _write(path, CURRENT, history(path)[1:])


def shadow(path: Path, name: str | None) -> None:
    """Let the bundle in the folder `name` run in shadow; None: no bundle. Raises: BadBundle, OSError."""
    check_is_folder_of_versions(path)
    if name is None:
        (path / SHADOW).unlink(missing_ok=True)
        return
    _inside(path, SHADOW, name)
    _write(path, SHADOW, [name])


def check_is_folder_of_versions(path: Path) -> None:
    """Raises BadBundle if `path` is a bundle: there is nothing to choose from."""
    if holds_bundle(path):
        raise BadBundle(
            f"{path}: is one bundle, not a folder of versions; move it into a folder and let model.path name that one"
        )


def _folders(path: Path) -> list[Path]:
    """The folders inside that hold a bundle, by name."""
    try:
        return sorted(
            Path(entry.path)
            for entry in os.scandir(path)
            if _NAME.fullmatch(entry.name)
            and entry.name not in {CURRENT, SHADOW}
            and entry.is_dir(follow_symlinks=False)
            and os.path.lexists(Path(entry.path) / MANIFEST)
        )
    except OSError as error:
        raise BadBundle(f"{path}: {error.strerror}") from error


def _inside(path: Path, pointer: str, name: str) -> Path:
    """The folder `name` directly inside `path`."""
    if not _NAME.fullmatch(name):
        raise BadPointer(f"{path / pointer}: {name[:80]!r} is not the plain name of a folder beside it")
    folder = path / name
    try:
        linked, there = folder.is_symlink(), folder.is_dir()
    except OSError as error:
        raise BadPointer(f"{path / pointer}: {name[:80]}: {error.strerror}") from error
    if linked:
        raise BadPointer(
            f"{path / pointer}: {name} is a symbolic link, which could lead anywhere; put the folder there"
        )
    if not there:
        raise BadPointer(f"{path / pointer}: there is no folder {name} beside it")
    return folder


def _lines(path: Path, pointer: str) -> list[str]:
    """The names in a pointer, empty if there is no such file. One that was made by hand may have blank lines."""
    file = path / pointer
    if not os.path.lexists(file):
        return []
    try:
        lines = read(file, LARGEST).decode().split("\n")
    except Unreadable as error:
        raise BadPointer(str(error)) from error
    except UnicodeDecodeError as error:
        raise BadPointer(f"{file}: is not text: must hold the name of a folder beside it") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise BadPointer(f"{file}: is empty: must hold the name of a folder beside it")
    return names


def _write(path: Path, pointer: str, names: list[str]) -> None:
    if (path / pointer).is_dir():
        raise BadPointer(
            f"{path / pointer}: is a folder, where the pointer of that name belongs: call it something else"
        )
    scratch = path / f".{pointer}-{secrets.token_hex(4)}"
    try:
        # As any file of this user's, not as a temporary one: the service may be another user.
        with scratch.open("x", encoding="utf-8") as file:
            file.write("".join(f"{name}\n" for name in names))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path / pointer)
        sync(path)
    finally:
        scratch.unlink(missing_ok=True)


def _version(folder: Path) -> str:
    """The version of a bundle, or '' if it has none: such a one comes last and is told when it is loaded."""
    try:
        told = (folder / MANIFEST).stat()
    except OSError:
        return ""
    return _version_read(folder, (told.st_ino, told.st_size, told.st_mtime_ns))


@lru_cache(maxsize=1024)
def _version_read(folder: Path, _: tuple[int, ...]) -> str:
    """Read once for each state of the file: a service asks every two seconds."""
    try:
        return bundle.read_manifest(folder).version
    except BadBundle:
        return ""
