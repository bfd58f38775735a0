"""An image built and run by podman without a registry: on a Debian made by debootstrap, shaped like Docker's Python."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.support.broker import unique

SUITE = "trixie"  # the Debian, and with it the Python (3.13), of the Dockerfile's own base
NEEDED = ("podman", "debootstrap")

# podman's own limits are more than root may give where it is in a container itself.
_SHARED = ("--network=host", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")

# Docker's Python images have a pip in /usr/local and no bytecode; what the Dockerfile does about both shall be seen.
_LIKE_DOCKERS = """\
FROM {debian}
RUN python3 -m venv /tmp/venv \\
 && /tmp/venv/bin/pip --python /usr/bin/python3 install --no-cache-dir --break-system-packages pip \\
 && rm -r /tmp/venv \\
 && find /usr/lib/python3* -name '*.pyc' -delete
"""


class PodmanMissing(Exception):
    """Why podman cannot build or run an image on this machine."""


class Podman:
    """podman, and `base`, an image it makes when entered. Its images are removed at its end.

    Args:
        folder: empty, for a Debian on its way into an image.

    Raises: PodmanMissing, here or when entered, if a container cannot be run."""

    def __init__(self, folder: Path) -> None:
        if missing := [name for name in NEEDED if shutil.which(name) is None]:
            raise PodmanMissing(f"{' and '.join(missing)} (apt-get install {' '.join(missing)})")
        if os.geteuid() != 0:
            raise PodmanMissing("root: debootstrap makes devices and changes its root")
        self._folder = folder
        self._command = ["podman", "--log-level=fatal"]
        self._images: list[str] = []

    def __enter__(self) -> Self:
        try:
            debian = self._debian()
            self._choose_runtime(debian)
            self.base = self.build("-", like=_LIKE_DOCKERS.format(debian=debian), context=self._folder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._images:
            self.say("rmi", "--force", *reversed(self._images), within=120)

    def say(self, *arguments: str, within: float = 60, text: str | None = None) -> str:
        """What podman answers; AssertionError with all that it said when it fails."""
        done = subprocess.run(
            [*self._command, *arguments], input=text, capture_output=True, text=True, timeout=within, check=False
        )
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def _debian(self) -> str:
        root, tag = self._folder / "debian", f"localhost/{unique('debian')}"
        packages = "python3,python3-venv,ca-certificates"
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stdout[-4000:] + made.stderr
        with tempfile.TemporaryFile() as tar:
            subprocess.run(
                ["tar", "-C", str(root), "--exclude=./var/cache/apt/archives/*.deb", "-c", "."], stdout=tar, check=True
            )
            shutil.rmtree(root)
            tar.seek(0)
            subprocess.run([*self._command, "import", "--quiet", "-", tag], stdin=tar, capture_output=True, check=True)
        self._images.append(tag)
        return tag

    def _choose_runtime(self, image: str) -> None:
        """crun refuses what runc allows where cgroups are of both versions."""
        refusals = []
        for runtime in ([], ["--runtime=runc"]):
            command = ["podman", "--log-level=fatal", *runtime]
            tried = subprocess.run(
                [*command, "run", "--rm", *_SHARED, image, "true"], capture_output=True, text=True, check=False
            )
            if tried.returncode == 0:
                self._command = command
                return
            refusals.append(tried.stderr.strip())
        raise PodmanMissing(f"a machine that lets it run a container: {'; '.join(refusals)}")

    def build(self, dockerfile: str, *, context: Path, like: str | None = None, **arguments: str) -> str:
        """The tag of the image; `arguments` are the Dockerfile's. `-` is the text `like`."""
        tag = f"localhost/{unique('image')}"
        # This machine's authorities and pip's settings, seen while building and not kept.
        seen = [path for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
        self.say(
            "build",
            *_SHARED,
            *[f"--volume={path}:{path}:ro" for path in seen],
            *[f"--build-arg={name}={value}" for name, value in arguments.items()],
            "--layers=false",  # stages that were cached would stay behind
            "--format=docker",  # OCI's has no health check
            f"--file={dockerfile}",
            f"--tag={tag}",
            str(context),
            within=1500,
            text=like,
        )
        self._images.append(tag)
        return tag

    def run(self, image: str, *command: str, entrypoint: str, user: str | None = None, tmp: bool = True) -> str:
        """What one command in a new container prints; without `tmp` it sees the image's own /tmp."""
        where = "--tmpfs=/tmp" if tmp else "--read-only-tmpfs=false"
        who = [] if user is None else [f"--user={user}"]
        options = ["--rm", "--read-only", where, *_SHARED, *who, f"--entrypoint={entrypoint}"]
        return self.say("run", *options, image, *command, within=120)

    @contextmanager
    def running(self, image: str, environment: dict[str, str]) -> Iterator[str]:
        """The name of a container that runs the image as it is meant, on a read-only root; removed at the end."""
        name = unique("downtick")
        given = [f"--env={key}={value}" for key, value in environment.items()]
        # It ends by itself should these tests be killed.
        options = ["--detach", f"--name={name}", "--timeout=600", "--read-only", "--tmpfs=/tmp", "--cap-drop=all"]
        self.say("run", *options, "--security-opt=no-new-privileges", *_SHARED, *given, image)
        try:
            yield name
        finally:
            self.say("rm", "--force", "--time=0", name)
