"""A trained model as a folder: plain numbers and text, checked in full before use, no code in it.

    bundle.json    what it is, how it was made and how good it was (`Manifest`), with the SHA-256 of the others and a
                   version that ends in a hash of all the rest
    weights.npz    the Keras weights by name (network.shapes), float32
    golden.npz     at most 64 windows, the features of each and what Keras answered: checked by the Predictor

Several of them in one folder, and which one counts: versions.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic
from numpy.lib import format as npy

from model import network
from model.files import Unreadable, read, sync
from model.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from model.inputs import Inputs
    from model.manifest import Architecture

MANIFEST, WEIGHTS, GOLDEN = "bundle.json", "weights.npz", "golden.npz"
LARGEST = {MANIFEST: 2**20, WEIGHTS: 2**26, GOLDEN: 2**26}  # bytes; ours are below 100 kB
MOST_COMMAS = 20_000  # in a manifest: each entry may be a fault of its own, and pydantic keeps a kilobyte of each
MOST_WORK = 2**27  # multiplications a window; the network that ships takes a thousandth of it
ADDITION = 16  # multiplications of a network take about as long as one step of a mean or a volatility
_END = struct.Struct("<4s4H2LH")  # the end of a zip file: signature, disks and entries, size of the directory, …
# What zipfile and NumPy raise on bytes that are no archive and no array; brackets without end are a TokenError.
_UNREADABLE = (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, SyntaxError, TokenError)
Shapes = dict[str, tuple[tuple[int, ...], "np.dtype[Any]"]]


class BadBundle(Exception):
    """This folder cannot be used as a model; the message is one line that names the file and the fault."""


@dataclass(frozen=True)
class Bundle:
    """The checked content of a bundle folder; arrays are finite and have the shapes that the manifest implies."""

    path: Path
    manifest: Manifest
    weights: network.Arrays
    golden: dict[str, NDArray[Any]]  # windows (k, reach, columns) float64; x, probability, change float32


def load(path: Path) -> Bundle:
    """Read and check the bundle at `path`; which one of several it is to be says versions.resolve.

    Raises: BadBundle. Whether the weights compute what golden.npz says is for the Predictor to check.
    """
    if not path.is_dir():
        raise BadBundle(f"{path}: there is no such folder")
    try:
        present = {entry.name for entry in os.scandir(path) if not entry.name.startswith(".")}
        if present != set(LARGEST):
            missing, extra = sorted(set(LARGEST) - present), sorted(present - set(LARGEST))
            what = f"{missing[0]} is missing" if missing else f"{extra[0]} does not belong to a bundle"
            raise BadBundle(f"{path}: {what}")
        content = {name: _read(path / name, limit) for name, limit in LARGEST.items()}
    except OSError as error:
        raise BadBundle(f"{path}: {error.strerror}: {error.filename}") from error
    manifest = _manifest(path, content[MANIFEST])
    if not manifest.version or manifest.files.keys() != {WEIGHTS, GOLDEN}:
        raise BadBundle(f"{path / MANIFEST}: must hold a version and the SHA-256 of {WEIGHTS} and {GOLDEN}")
    if not manifest.version.endswith(f"-{manifest.digest}"):
        raise BadBundle(
            f"{path / MANIFEST}: is not what {manifest.version} was written with, of which the version would end in "
            f"{manifest.digest}: put the file back as it was written, or train another bundle"
        )
    if (work := work_of(manifest.inputs, manifest.network)) > MOST_WORK:
        raise BadBundle(f"{path / MANIFEST}: {work:,} multiplications a window, which takes too long even to verify")
    for name, digest in manifest.files.items():
        if hashlib.sha256(content[name]).hexdigest() != digest:
            raise BadBundle(f"{path / name}: its SHA-256 is not the one in {MANIFEST}: damaged, or of another bundle")
    weights = _arrays(path / WEIGHTS, content[WEIGHTS], weight_shapes(manifest))
    golden = _arrays(path / GOLDEN, content[GOLDEN], golden_shapes(manifest))
    return Bundle(path, manifest, weights, golden)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`, alone: nothing else of it is looked at. Raises: BadBundle."""
    return _manifest(path, _read(path / MANIFEST, LARGEST[MANIFEST]))


def write(
    path: Path,
    manifest: Manifest,
    weights: network.Arrays,
    golden: Mapping[str, NDArray[Any]],
    verify: Callable[[Path], object] = lambda _: None,
) -> Manifest:
    """Write a bundle to the folder `path` and give the manifest as written, with its version and checksums filled in.

    A reader sees the old bundle, the new one or (for an instant, when one is replaced) none, never a mixture.
    Args:
        verify: called with the folder of the new one before the old one is touched; what it raises leaves that.
    Raises: BadBundle if `path` is something other than a bundle or an empty folder; OSError.
    """
    check_place(path)
    files = {WEIGHTS: pack(weights), GOLDEN: pack(golden)}
    manifest = manifest.sealed({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    files[MANIFEST] = (manifest.model_dump_json(indent=2) + "\n").encode()
    scratch = _scratch(path)
    fresh, old = scratch / "new", scratch / "old"
    try:
        fresh.mkdir()
        for name, data in files.items():
            with (fresh / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync(fresh)
        verify(fresh)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        sync(path.parent)
    finally:
        if os.path.lexists(old) and not os.path.lexists(path):  # a relative link leads nowhere from `scratch`
            old.rename(path)  # if that fails as well, nothing is deleted: the old bundle lies in `scratch`
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def check_place(path: Path) -> None:
    """Raises BadBundle if `path` is anything but a bundle, an empty folder or nothing: it is not ours to replace. Also
    if no folder can be made there, which is tried: the folders above it are there afterwards.

    A bundle here is a folder of its files alone: anything else in it, hidden or not, would be deleted with them."""
    if path.name in {"", ".."} or os.path.ismount(path):
        raise BadBundle(f"{path}: cannot be moved aside to be replaced; name a new folder")
    _scratch(path).rmdir()
    if not os.path.lexists(path):
        return
    found = {entry.name: entry for entry in os.scandir(path)} if path.is_dir() else None
    if found is None or (found and not {MANIFEST, WEIGHTS} <= found.keys()):
        raise BadBundle(f"{path}: exists and is not a bundle; name a new folder")
    if foreign := sorted(name for name, entry in found.items() if name not in LARGEST or entry.is_dir()):
        raise BadBundle(
            f"{path}: {foreign[0]} does not belong to a bundle, and would be deleted with it: move it, or name a new "
            "folder"
        )


def _scratch(path: Path) -> Path:
    """A new folder beside `path`, to make in it what takes its place. Raises: BadBundle if there can be none."""
    try:
        with contextlib.suppress(FileExistsError):  # a file: that it is no folder is told below
            path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise BadBundle(f"{path}: no folder can be made in {path.parent}: {error.strerror}") from error


def weight_shapes(manifest: Manifest) -> Shapes:
    """Names, shapes and types of what weights.npz must hold."""
    dtype = np.dtype("<f4")
    return {name: (shape, dtype) for name, shape in network.shapes(manifest.inputs, manifest.network).items()}


def work_of(inputs: Inputs, architecture: Architecture) -> int:
    """Multiplications that one window takes: each weight once, those of an LSTM's body once a step; and, in the same
    unit, what its channels add up. A bundle above MOST_WORK is not loaded."""
    steps = inputs.window if architecture.kind == "lstm" else 1
    shapes = network.shapes(inputs, architecture)
    weights = sum(int(np.prod(shape)) * (steps if name.startswith("lstm") else 1) for name, shape in shapes.items())
    return weights + ADDITION * inputs.window * sum(channel.span for channel in inputs.parsed)


def golden_shapes(manifest: Manifest) -> Shapes:
    """Names, shapes and types of what golden.npz must hold."""
    k, inputs = manifest.golden_rows, manifest.inputs
    single, double = np.dtype("<f4"), np.dtype("<f8")
    return {
        "windows": ((k, inputs.reach, inputs.columns), double),
        "x": ((k, inputs.window, len(inputs.channels)), single),
        "probability": ((k,), single),
        "change": ((k,), single),
    }


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as an .npz, the same bytes for the same arrays (np.savez puts the time of day into it)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            npy.write_array(part, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), part.getvalue())
    return buffer.getvalue()


def _read(file: Path, limit: int) -> bytes:
    try:
        return read(file, limit)
    except Unreadable as error:
        raise BadBundle(str(error)) from error


def _manifest(path: Path, data: bytes) -> Manifest:
    if data.count(b",") > MOST_COMMAS:
        raise BadBundle(f"{path / MANIFEST}: holds far more entries than a manifest has")
    try:
        return Manifest.model_validate_json(data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadBundle(f"{path / MANIFEST}: {where}: {first['msg']}") from error


def _arrays(file: Path, data: bytes, expected: Shapes) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz: exactly those expected, finite. Nothing is allocated for one of another size or type."""
    end = data[-_END.size :]
    signature, _, _, _, _, directory, _, comment = _END.unpack(end) if len(end) == _END.size else (b"",) + (0,) * 7
    if signature != b"PK\5\6" or comment or b"PK\6\7" in data[-_END.size - 20 : -_END.size]:
        raise BadBundle(f"{file}: not a readable .npz: does not end as an archive of ours")
    if directory > 256 * len(expected):  # zipfile makes an object for each entry, before anybody can look at one
        raise BadBundle(f"{file}: must hold {', '.join(expected)}, holds far more")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if entries.keys() != {f"{name}.npy" for name in expected} or len(archive.infolist()) != len(entries):
                raise BadBundle(f"{file}: must hold {', '.join(expected)}, holds {', '.join(entries) or 'nothing'}")
            for name, (shape, dtype) in expected.items():
                if entries[f"{name}.npy"].file_size > _bytes(shape, dtype) + 4096:  # the header is about 128 bytes
                    raise BadBundle(f"{file}: {name} is larger than its shape {shape} allows")
            return {name: _array(file, name, archive, *expected[name]) for name in expected}
    except (*_UNREADABLE, OSError) as error:
        raise BadBundle(f"{file}: not a readable .npz: {str(error)[:200]}") from error


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape)) * dtype.itemsize


def _array(
    file: Path, name: str, archive: zipfile.ZipFile, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    size, entry = _bytes(shape, dtype), archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED:  # unpacking can be made to give any amount, whatever `file_size` says
        raise BadBundle(f"{file}: {name} is compressed, must be stored as it is")
    part = io.BytesIO(archive.read(entry))
    version = npy.read_magic(part)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    found_shape, fortran, found_dtype = read_header(part)
    if (found_shape, found_dtype, fortran) != (shape, dtype, False):
        raise BadBundle(f"{file}: {name} is {found_dtype} {found_shape}, must be {dtype} {shape}")
    raw = part.read()
    if len(raw) != size:
        raise BadBundle(f"{file}: {name} has {len(raw)} bytes of data, must have {size}")
    array = np.frombuffer(raw, dtype).reshape(shape)
    if not np.isfinite(array).all():
        raise BadBundle(f"{file}: {name} holds a number that is not finite")
    return array
