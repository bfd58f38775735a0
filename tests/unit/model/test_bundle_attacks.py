"""Bundles made to do harm, one by one: each is refused with one clear line, in little time and memory.

What a bundle's own rules refuse (shapes, checksums, manifests) is in test_bundle.py; here it is what lies about itself,
leads elsewhere, never ends, or unpacks to more than it should."""

import io
import json
import os
import shutil
import socket
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import bundle, versions
from model.bundle import GOLDEN, MANIFEST, WEIGHTS, BadBundle
from model.predictor import DEFAULT_BUNDLE, Predictor
from tests.support.sealed import seal

MEMORY, SECONDS = 40e6, 5.0  # that refusing may take; reading a bundle of ours takes 0.2 MB


def computed(path: Path) -> object:
    """Load it and compare what it computes, as the service does."""
    return Predictor.load(path, threads=1)


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What is compiled once per process counts for no bundle."""
    computed(DEFAULT_BUNDLE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundle that ships, to turn into a trap."""
    return Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "mine"))


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return found


def refused(folder: Path, load: Callable[[Path], object] = bundle.load) -> str:
    """The one line, and that it cost little."""
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(BadBundle) as error:
            load(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < SECONDS
    assert peak < MEMORY, f"{peak / 1e6:.0f} MB"
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 500
    return line.replace(str(folder), "mine")


def members(folder: Path, name: str = WEIGHTS) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / name) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


def pack(folder: Path, content: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED, name: str = WEIGHTS) -> None:
    with zipfile.ZipFile(folder / name, "w", method) as archive:
        for entry, data in content:
            archive.writestr(zipfile.ZipInfo(entry), data, method)
    seal(folder)


def npy(array: Any, **header: Any) -> bytes:
    """An array as .npy, its header as given where it should lie."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
    if not header:
        return buffer.getvalue()
    data = buffer.getvalue()[128:]
    text = repr({"descr": "<f4", "fortran_order": False, "shape": (1, 128), **header}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


# --- what is no file


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _socket(file: Path) -> None:
    file.unlink()
    here = Path.cwd()
    os.chdir(file.parent)  # a socket's path has 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(file.name)
    finally:
        os.chdir(here)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _link_to(target: str) -> Callable[[Path], None]:
    def link(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return link


def _link_outside(file: Path) -> None:
    """To a file that is right in every way, but not in this folder."""
    file.rename(file.parent.parent / file.name)
    file.symlink_to(file.parent.parent / file.name)


ODD_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a fifo": (_fifo, "is not a file"),
    "a socket": (_socket, "No such device or address"),
    "a folder": (_folder, "is not a file"),
    "an endless device": (_link_to("/dev/zero"), "is a symbolic link that leads out of its folder"),
    "a secret of the machine": (_link_to("/etc/passwd"), "is a symbolic link that leads out of its folder"),
    "a link to a good file elsewhere": (_link_outside, "is a symbolic link that leads out of its folder"),
    "a link to nothing": (_link_to("nothing"), "No such file or directory"),
    "a link to itself": (_link_to("weights.npz"), "Too many levels of symbolic links"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", ODD_FILES)
def test_what_is_no_plain_file_is_refused_and_not_waited_for(folder: Path, case: str) -> None:
    make, why = ODD_FILES[case]
    make(folder / WEIGHTS)
    assert refused(folder) == f"mine/weights.npz: {why}"


@pytest.mark.timeout(20)
def test_a_manifest_that_is_a_fifo_is_refused_and_not_waited_for_wherever_it_is_looked_at(folder: Path) -> None:
    _fifo(folder / MANIFEST)
    assert refused(folder) == "mine/bundle.json: is not a file"
    assert refused(folder.parent, lambda path: bundle.load(versions.resolve(path))).endswith("is not a file")
    [listed] = versions.versions(folder.parent)
    assert listed.fault.endswith("is not a file")


def test_files_linked_within_the_folder_are_fine_as_a_config_map_mounts_them(folder: Path) -> None:
    (folder / "..data").mkdir()
    for name in (MANIFEST, WEIGHTS, GOLDEN):
        (folder / name).rename(folder / "..data" / name)
        (folder / name).symlink_to(f"..data/{name}")
    assert bundle.load(folder).manifest.version == manifest(folder)["version"]


def test_a_file_too_many_is_refused_whatever_it_is(folder: Path) -> None:
    for name in ("__init__.py", "weights.npz.pkl", "model.keras", "hook"):
        (folder / name).touch()
        assert refused(folder) == f"mine: {name} does not belong to a bundle"
        (folder / name).unlink()


# --- archives


def test_members_named_as_paths_are_never_looked_for_nor_written(folder: Path) -> None:
    content = members(folder)
    bias = content.pop("lstm_bias.npy")
    for name in ("../lstm_bias.npy", "/tmp/lstm_bias.npy", "a/lstm_bias.npy", "lstm_bias.npy/", "C:\\lstm_bias.npy"):  # noqa: S108  # it must not be written
        pack(folder, [*content.items(), (name, bias)])
        assert refused(folder).startswith("mine/weights.npz: must hold ")
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, GOLDEN, WEIGHTS]
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(folder: Path) -> None:
    content = list(members(folder).items())
    pack(folder, [*content, content[0]])
    assert refused(folder).startswith("mine/weights.npz: must hold ")


def test_a_member_too_many_or_too_few_is_refused(folder: Path) -> None:
    content = members(folder)
    pack(folder, [*content.items(), ("hook.npy", npy(np.zeros(3)))])
    assert refused(folder).startswith("mine/weights.npz: must hold ")
    content.pop("lstm_bias.npy")
    pack(folder, list(content.items()))
    assert refused(folder).startswith("mine/weights.npz: must hold ")


def test_a_hundred_thousand_members_are_not_even_listed(folder: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(100_000):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    (folder / WEIGHTS).write_bytes(buffer.getvalue())
    seal(folder)
    refused(folder)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_is_not_unpacked_however_it_is_packed(folder: Path, method: int) -> None:
    content = members(folder)
    content["lstm_bias.npy"] += b"\0" * 100_000_000
    pack(folder, list(content.items()), method)
    refused(folder)


def test_a_bomb_that_lies_about_its_size_is_cut_off(folder: Path) -> None:
    """The archive's directory says what the array should have; the data unpacks to a hundred megabytes."""
    content = members(folder)
    honest = len(content["lstm_bias.npy"])
    content["lstm_bias.npy"] += b"\0" * 100_000_000
    pack(folder, list(content.items()), zipfile.ZIP_DEFLATED)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data.replace(struct.pack("<I", honest + 100_000_000), struct.pack("<I", honest)))
    seal(folder)
    assert refused(folder) == "mine/weights.npz: lstm_kernel is compressed, must be stored as it is"


def test_a_member_that_asks_for_a_password_is_refused(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1  # encrypted, says the directory
    (folder / WEIGHTS).write_bytes(data)
    seal(folder)
    assert refused(folder).startswith("mine/weights.npz: not a readable .npz: ")


def test_a_directory_that_points_elsewhere_is_refused(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    at = data.rindex(b"PK\x05\x06")
    for offset, value in ((12, 2**31), (12, 40), (16, 2**31), (12, 0xFFFFFFFF)):
        forged = data[: at + offset] + struct.pack("<I", value) + data[at + offset + 4 :]
        (folder / WEIGHTS).write_bytes(forged)
        seal(folder)
        assert refused(folder).startswith("mine/weights.npz: ")


# --- arrays

PICKLE = b"cos\nsystem\n(S'touch pwned'\ntR."

ARRAYS: dict[str, tuple[bytes, str]] = {
    "objects": (npy(np.array([print] * 3, object)), "lstm_bias is object (3,), must be float32"),
    "a pickle": (PICKLE, "not a readable .npz: "),
    "a pickle behind a good header": (npy(np.zeros((1, 0), np.float32), shape=(1, 128)) + PICKLE, "bytes of data"),
    "a structured type": (npy(np.zeros(3, [("a", "<f4")])), "must be float32 (1, 128)"),
    "text": (npy(np.array(["x"] * 3)), "must be float32 (1, 128)"),
    "numbers of the other byte order": (npy(np.zeros((1, 128), ">f4")), "is >f4 (1, 128), must be float32"),
    "Fortran's order": (npy(np.zeros((1, 128), np.float32), fortran_order=True), "must be float32 (1, 128)"),
    "a shape that lies": (npy(np.zeros((1, 128), np.float32), shape=(1, 10**15)), "must be float32 (1, 128)"),
    "a negative shape": (npy(np.zeros((1, 128), np.float32), shape=(-1, 128)), "must be float32 (1, 128)"),
    "a shape of text": (npy(np.zeros((1, 128), np.float32), shape="big"), "not a readable .npz: "),
    "too little data": (npy(np.zeros((1, 100), np.float32), shape=(1, 128)), "has 400 bytes of data, must have 512"),
    "a header of brackets": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 900) + b"[" * 900, "not a readable .npz: "),
    "a header of minus signs": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 3000) + b"-" * 3000, "not a readable .npz: "),
    "a header that calls": (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 40) + b"__import__('os').system('touch pwned')".ljust(40),
        "not a readable .npz: ",
    ),
    "a header longer than the file": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1), "not a readable .npz: "),
    "a version of the format that does not exist": (b"\x93NUMPY\x09\x09" + b"\0" * 200, "not a readable .npz: "),
    "nothing": (b"", "not a readable .npz: "),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_not_what_they_say_are_refused(folder: Path, case: str) -> None:
    data, why = ARRAYS[case]
    content = members(folder)
    content["lstm_bias.npy"] = data
    pack(folder, list(content.items()))
    line = refused(folder)
    assert line.startswith("mine/weights.npz: ")
    assert why in line
    assert not Path("pwned").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_golden_numbers_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    """NaN against NaN must not pass for equal."""
    with np.load(folder / GOLDEN) as found:
        content = {name: found[name].copy() for name in found}
    content["probability"][3] = value
    np.savez(folder / GOLDEN, **content)
    seal(folder)
    assert refused(folder) == "mine/golden.npz: probability holds a number that is not finite"


def test_weights_that_overflow_inside_the_network_are_refused(folder: Path) -> None:
    """Each is finite; what they compute is not what the network computed when it was written."""
    with np.load(folder / WEIGHTS) as found:
        content = {name: np.full_like(found[name], 3e38) for name in found}
    np.savez(folder / WEIGHTS, **content)
    seal(folder)
    assert "of the golden windows is off by" in refused(folder, computed)


def test_changed_weights_with_a_right_checksum_are_refused_by_what_they_compute(folder: Path) -> None:
    with np.load(folder / WEIGHTS) as found:
        content = {name: found[name].copy() for name in found}
    content["lstm_recurrent"] = -content["lstm_recurrent"]
    np.savez(folder / WEIGHTS, **content)
    seal(folder)
    bundle.load(folder)  # it is well formed
    assert "of the golden windows is off by" in refused(folder, computed)


WORK: dict[str, dict[str, Any]] = {
    "a wide one over many steps": {"window": 4096, "min_history": 4096, "network": {"kind": "lstm", "units": 1024}},
    "many of them": {"window": 512, "min_history": 512, "network": {"kind": "lstm", "units": 256, "members": 16}},
    "one of many inputs": {
        "window": 4096,
        "min_history": 4096,
        "channels": [f"a{number}" for number in range(64)],
        "network": {"kind": "dense", "units": 1024},
    },
    "one of long means": {
        "window": 3585,
        "min_history": 4096,
        "channels": [f"value.mean{span}" for span in range(449, 513)],
        "network": {"kind": "dense"},
    },
    "one of long volatilities": {
        "window": 3584,
        "min_history": 4096,
        "channels": [f"value.volatility{span}" for span in range(449, 513)],
        "network": {"kind": "dense"},
    },
}


@pytest.mark.parametrize("case", WORK)
def test_a_network_that_would_take_minutes_to_verify_is_refused_by_its_size(folder: Path, case: str) -> None:
    seal(folder, **WORK[case])
    line = refused(folder)
    assert line.startswith("mine/bundle.json: ")
    assert "multiplications a window, which takes too long even to verify" in line


def test_the_largest_network_that_is_asked_for_is_far_below_that_size(folder: Path) -> None:
    """32 steps of 16 channels, five networks of 64 units averaged: refused for its weights, not for its size."""
    channels = ["value", *(f"value.mean{span}" for span in range(2, 17))]
    large = {"kind": "lstm", "units": 64, "members": 5}
    seal(folder, channels=channels, min_history=47, network=large)
    assert refused(folder).startswith("mine/weights.npz: ")


# --- manifests

TEXTS: dict[str, bytes] = {
    "a hundred thousand brackets": b"[" * 100_000,
    "a hundred thousand objects": b'{"a":' * 100_000,
    "an entry of such": b'{"format": 2, "version": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a megabyte of blanks": b" " * 2**20,
    "more than a megabyte": b" " * (2**20 + 1),
    "a number of a million digits": b'{"window": ' + b"9" * 1_000_000 + b"}",
    "a million names": b"{" + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}",
    "no UTF-8": b'{"version": "\xff\xfe"}',
    "a NUL": b'{"version": "\0"}',
    "half a pair": b'{"version": "\\ud800"}',
    "NaN": b'{"window": NaN}',
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_manifest_that_is_deep_huge_or_no_text_is_refused(folder: Path, case: str) -> None:
    (folder / MANIFEST).write_bytes(TEXTS[case])
    line = refused(folder)
    assert line.startswith("mine/bundle.json: ")
    assert line.isprintable()


WRONG = [None, True, 1.5, -1, 10**400, "x", [], {}, [[]], {"rule": {}}]


@pytest.mark.parametrize("name", sorted(json.loads((DEFAULT_BUNDLE / MANIFEST).read_text(encoding="utf-8"))))
def test_an_entry_of_a_wrong_type_is_refused_by_its_name(folder: Path, name: str) -> None:
    right = manifest(folder)
    for value in WRONG:
        if name in {"libraries", "network"} and value == {}:
            continue  # that is one; without a word about it the network is the usual one
        (folder / MANIFEST).write_text(json.dumps({**right, name: value}), encoding="utf-8")
        line = refused(folder)
        assert line.startswith("mine/bundle.json: ")
        assert name in line or "the file" in line or (name == "files" and "the SHA-256 of" in line)


VERSIONS = [
    "../../etc/passwd",
    "2026-11-23T120000Z-3fa9c1\n",
    "2026-11-23T120000Z-3fa9c1\0",
    "\x1b[31m2026-11-23T120000Z-3fa9c1",
    "2026-11-23T120000Z-3FA9C1",
    "２０２６-11-23T120000Z-3fa9c1",  # digits of another script
    '2026-11-23T120000Z-3fa9c1","falling":true,"x":"',
    "%d%n",
    "",
    "x" * 100_000,
]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_is_plain_text_of_one_form_because_it_goes_out_with_every_prediction(
    folder: Path, version: str
) -> None:
    seal(folder, version=version)
    line = refused(folder)
    assert line.startswith("mine/bundle.json: ")
    assert "version" in line


NAMES = ["a,b", "a\nb", "", " a", "x" * 65, "a\0", "\x1b[31m"]


@pytest.mark.parametrize("name", NAMES)
def test_a_channel_with_an_odd_name_is_refused_because_redis_keeps_it(folder: Path, name: str) -> None:
    seal(folder, channels=["value", name])
    line = refused(folder)
    assert line.startswith("mine/bundle.json: ")
    assert line.isprintable()
