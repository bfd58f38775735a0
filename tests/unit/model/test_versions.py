"""Which bundle of a folder counts, how that is changed, and what a pointer must not do."""

import os
import shutil
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from model import bundle, versions
from model.bundle import BadBundle
from model.predictor import DEFAULT_BUNDLE

DIGEST = bundle.read_manifest(DEFAULT_BUNDLE).digest


def put(folder: Path, name: str, written: str = "") -> Path:
    """A copy of the bundle that ships, sealed at another time: that is all its version differs in."""
    target = Path(shutil.copytree(DEFAULT_BUNDLE, folder / name))
    if written:
        manifest = bundle.load(target).manifest
        manifest = manifest.sealed(dict(manifest.files), datetime.fromisoformat(written))
        (target / bundle.MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    return target


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Three versions; by name alone `c` would be the last."""
    folder = tmp_path / "models"
    folder.mkdir()
    put(folder, "a", "2026-11-23T12:00:00Z")
    put(folder, "b", "2027-01-01T00:00:00Z")
    put(folder, "c", "2026-12-31T23:59:59Z")
    return folder


def told(action: Callable[[], object], folder: Path) -> str:
    with pytest.raises(BadBundle) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(folder), "models")


def lines(folder: Path) -> list[str]:
    return (folder / "current").read_text().splitlines()


# --- which one counts


def test_a_name_that_no_file_system_takes_is_told_in_a_line(models: Path) -> None:
    for pointer, look in (("current", versions.resolve), ("shadow", versions.candidate)):
        (models / pointer).write_text("ß" * 200)
        line = told(lambda look=look: look(models), models)  # type: ignore[misc]
        assert line == f"models/{pointer}: {'ß' * 80}: File name too long"
    for look in (versions.resolve, versions.candidate):
        assert told(lambda look=look: look(models / ("m" * 300)), models).endswith("mm: File name too long")  # type: ignore[misc]


def test_a_bundle_counts_itself_whatever_lies_in_it(models: Path) -> None:
    (models / "a" / "current").write_text("nonsense")
    assert versions.resolve(models / "a") == models / "a"


def test_without_a_pointer_the_greatest_version_counts(models: Path) -> None:
    assert versions.resolve(models) == models / "b"
    put(models, ".hidden", "2030-01-01T00:00:00Z")
    (models / "d").mkdir()
    (models / "d" / "bundle.json").write_text("{")
    assert versions.resolve(models) == models / "b"


def test_manifests_are_read_again_only_when_they_change(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without a pointer asks every two seconds."""
    read: list[str] = []
    whole = bundle.read_manifest
    monkeypatch.setattr(bundle, "read_manifest", lambda folder: (read.append(folder.name), whole(folder))[1])
    for _ in range(3):
        assert versions.resolve(models) == models / "b"
    assert sorted(read) == ["a", "b", "c"]
    shutil.rmtree(models / "c")
    put(models, "c", "2028-01-01T00:00:00Z")
    assert versions.resolve(models) == models / "c"
    assert sorted(read) == ["a", "b", "c", "c"]


def test_the_pointer_counts_once_there_is_one(models: Path) -> None:
    (models / "current").write_text("a\n")
    assert versions.resolve(models) == models / "a"
    (models / "current").write_text("\n  c  \r\n\nb")  # by hand
    assert versions.resolve(models) == models / "c"


def test_nothing_to_count_is_told(tmp_path: Path) -> None:
    assert told(lambda: versions.resolve(tmp_path / "x"), tmp_path) == "models/x: there is no such folder"
    (tmp_path / "file").write_text("")
    assert told(lambda: versions.resolve(tmp_path / "file"), tmp_path) == "models/file: there is no such folder"
    assert "neither a bundle (bundle.json is missing) nor a folder of bundles" in told(
        lambda: versions.resolve(tmp_path), tmp_path
    )


# --- what a pointer must not do

POINTERS = {
    "a path upwards": ("../elsewhere", "'../elsewhere' is not the plain name of a folder beside it"),
    "the folder above": ("..", "'..' is not the plain name"),
    "the folder itself": (".", "'.' is not the plain name"),
    "an absolute path": ("/etc", "'/etc' is not the plain name"),
    "a path downwards": ("a/b", "'a/b' is not the plain name"),
    "a path of another system": ("a\\b", "'a\\\\b' is not the plain name"),
    "a hidden folder": (".hidden", "'.hidden' is not the plain name"),
    "a NUL": ("a\0b", "'a\\x00b' is not the plain name"),
    "an escape sequence": ("\x1b[2Ja", "'\\x1b[2Ja' is not the plain name"),
    "a very long name": ("a" * 300, f"'{'a' * 80}' is not the plain name"),
    "no such folder": ("z", "there is no folder z beside it"),
    "a file": ("file", "there is no folder file beside it"),
    "a link": ("link", "link is a symbolic link, which could lead anywhere; put the folder there"),
    "nothing": ("", "is empty: must hold the name of a folder beside it"),
    "blanks": (" \n\n", "is empty: must hold the name of a folder beside it"),
}


@pytest.mark.parametrize("case", POINTERS)
@pytest.mark.parametrize("pointer", ["current", "shadow"])
def test_a_pointer_leads_to_a_folder_beside_it_and_nowhere_else(models: Path, case: str, pointer: str) -> None:
    (models / "file").write_text("")
    (models / "link").symlink_to(put(models.parent, "elsewhere"))
    put(models, ".hidden")
    text, why = POINTERS[case]
    (models / pointer).write_text(text)
    follow = versions.resolve if pointer == "current" else versions.candidate
    found = told(lambda: follow(models), models)
    assert found.startswith(f"models/{pointer}: ")
    assert why in found
    assert found.isprintable()


def _link(file: Path) -> None:
    (file.parent.parent / "secret").write_text("a\n")
    file.symlink_to(file.parent.parent / "secret")


ODD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a fifo": (os.mkfifo, "is not a file"),
    "a folder": (Path.mkdir, "is not a file"),
    "a link out of the folder": (_link, "is a symbolic link that leads out of its folder"),
    "a dangling link": (lambda file: file.symlink_to("nowhere"), "No such file or directory"),
    "a link to itself": (lambda file: file.symlink_to(file.name), "Too many levels of symbolic links"),
    "a huge file": (lambda file: file.write_bytes(b"a" * 70_000), "larger than 65,536 bytes"),
    "binary": (lambda file: file.write_bytes(b"\xff\xfe"), "is not text"),
    "a device": (lambda file: file.symlink_to("/dev/zero"), "is a symbolic link that leads out of its folder"),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("case", ODD_FILES)
def test_a_pointer_that_is_no_plain_file_is_refused_and_not_waited_for(models: Path, case: str) -> None:
    make, why = ODD_FILES[case]
    make(models / "current")
    assert why in told(lambda: versions.resolve(models), models)


def test_a_folder_in_the_pointers_place_is_told_and_never_counts(models: Path) -> None:
    put(models, "shadow", "2030-01-01T00:00:00Z")
    assert versions.resolve(models) == models / "b"
    assert "where the pointer of that name belongs" in told(lambda: versions.shadow(models, "a"), models)
    put(models, "current", "2031-01-01T00:00:00Z")
    for action in (lambda: versions.resolve(models), lambda: versions.activate(models, "a")):
        assert told(action, models) == "models/current: is not a file"


def test_a_pointer_may_be_a_link_within_the_folder_as_a_config_map_makes_it(models: Path) -> None:
    (models / "..data").mkdir()
    (models / "..data" / "current").write_text("a\n")
    (models / "current").symlink_to("..data/current")
    assert versions.resolve(models) == models / "a"


# --- changing it


def test_activations_are_remembered_and_rolled_back_one_by_one(models: Path) -> None:
    versions.activate(models, "a")
    assert lines(models) == ["a", "b"]  # b predicted before there was a pointer
    versions.activate(models, "c")
    versions.activate(models, "c")  # again changes nothing
    assert lines(models) == ["c", "a", "b"]
    versions.activate(models, "a")
    assert lines(models) == ["a", "c", "a", "b"]
    assert versions.before(models) == models / "c"
    versions.rollback(models)
    versions.rollback(models)
    assert versions.resolve(models) == models / "a"
    versions.rollback(models)
    assert versions.resolve(models) == models / "b"
    assert "names nothing that was active before" in told(lambda: versions.rollback(models), models)
    assert lines(models) == ["b"]


def test_a_rollback_without_a_pointer_or_to_what_is_gone_changes_nothing(models: Path) -> None:
    assert "names nothing that was active before" in told(lambda: versions.rollback(models), models)
    versions.activate(models, "a")
    shutil.rmtree(models / "b")
    assert told(lambda: versions.rollback(models), models) == "models/current: there is no folder b beside it"
    assert lines(models) == ["a", "b"]


def test_the_first_activation_may_be_of_what_counted_before(models: Path) -> None:
    versions.activate(models, "b")
    assert lines(models) == ["b"]


def test_only_so_many_activations_are_kept(models: Path) -> None:
    for number in range(30):
        versions.activate(models, "ab"[number % 2])
    assert len(lines(models)) == versions.KEPT


def test_the_candidate_is_named_and_taken_back(models: Path) -> None:
    assert versions.candidate(models) is None
    versions.shadow(models, "c")
    assert versions.candidate(models) == models / "c"
    assert versions.resolve(models) == models / "b"
    versions.shadow(models, None)
    versions.shadow(models, None)
    assert versions.candidate(models) is None
    assert versions.candidate(models / "a") is None  # a bundle alone has none


def test_what_cannot_be_active_is_refused_before_anything_is_written(models: Path) -> None:
    for name in ("../a", "z", ""):
        told(lambda name=name: versions.activate(models, name), models)  # type: ignore[misc]
        told(lambda name=name: versions.shadow(models, name), models)  # type: ignore[misc]
    assert "is one bundle, not a folder of versions" in told(lambda: versions.activate(models / "a", "a"), models)
    assert sorted(entry.name for entry in models.iterdir()) == ["a", "b", "c"]


def test_a_writer_that_dies_leaves_the_old_pointer(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions.activate(models, "a")
    monkeypatch.setattr(versions.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        versions.activate(models, "c")
    assert versions.resolve(models) == models / "a"
    assert sorted(entry.name for entry in models.iterdir()) == ["a", "b", "c", "current"]


def test_another_user_may_read_the_pointer(models: Path) -> None:
    before = os.umask(0o022)
    try:
        versions.activate(models, "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((models / "current").stat().st_mode) == 0o644


# --- what there is


def test_versions_are_listed_newest_first_with_what_they_are_and_what_is_wrong_with_them(models: Path) -> None:
    versions.activate(models, "c")
    versions.shadow(models, "a")
    (models / "b" / "weights.npz").write_bytes(b"")
    (models / "notes").mkdir()
    (models / "link").symlink_to(models / "a")
    listed = versions.versions(models)
    assert [(one.name, one.current, one.shadow) for one in listed] == [
        ("b", False, False),
        ("c", True, False),
        ("a", False, True),
    ]
    assert [one.fault.replace(str(models), "models") for one in listed][1:] == ["", ""]
    assert "weights.npz: its SHA-256 is not the one in bundle.json" in listed[0].fault


def test_a_bundle_alone_is_listed_as_the_one_that_counts(models: Path) -> None:
    [one] = versions.versions(models / "a")
    assert (one.name, one.current, one.version) == ("a", True, f"2026-11-23T120000Z-{DIGEST}")


def test_listing_nothing_is_told(tmp_path: Path) -> None:
    assert "nor a folder of bundles" in told(lambda: versions.versions(tmp_path), tmp_path)


def test_a_version_is_named_by_its_folder_or_the_beginning_of_its_version(models: Path) -> None:
    assert versions.named(models, "a").name == "a"
    assert versions.named(models, "2027").name == "b"
    assert versions.named(models, f"2026-12-31T235959Z-{DIGEST}").name == "c"
    assert told(lambda: versions.named(models, "2026"), models) == "models: 2 versions are called '2026': c, a"
    assert told(lambda: versions.named(models, "z"), models) == "models: no version is called 'z'"
    assert told(lambda: versions.named(models, ""), models) == "models: no version is called ''"
    put(models, "2027", "2026-01-01T00:00:00Z")
    assert versions.named(models, "2027").name == "2027"  # a folder's whole name comes first
