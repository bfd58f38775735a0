"""A bundle comes back as it was written, and anything else than that is refused with one line."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import bundle
from model.bundle import BadBundle
from model.manifest import Architecture
from model.predictor import DEFAULT_BUNDLE, Predictor
from tests.support.sealed import seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundle that ships, to break."""
    return Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "mine"))


def edit(folder: Path, **changes: Any) -> None:
    """Change top-level entries of bundle.json."""
    file = folder / "bundle.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def arrays(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the arrays of an .npz and seal it."""
    with np.load(folder / name) as found:
        content = {key: found[key].copy() for key in found}
    change(content)
    np.savez(folder / name, **content)
    seal(folder)


def told(folder: Path, *, load: Callable[[Path], object] = bundle.load) -> str:
    with pytest.raises(BadBundle) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(folder), "mine")


def test_what_is_written_is_what_is_loaded(folder: Path, tmp_path: Path) -> None:
    content = bundle.load(folder)
    written = bundle.write(tmp_path / "new" / "deep", content.manifest, content.weights, content.golden)
    again = bundle.load(tmp_path / "new" / "deep")
    assert again.manifest == written
    for ours, theirs in [(again.weights, content.weights), (again.golden, content.golden)]:
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["deep"]


def test_the_same_arrays_are_the_same_bytes(folder: Path) -> None:
    content = bundle.load(folder)
    assert bundle.pack(content.weights) == (folder / "weights.npz").read_bytes()
    assert bundle.pack(content.golden) == (folder / "golden.npz").read_bytes()


def test_the_version_names_the_time_and_what_is_in_it(folder: Path) -> None:
    content = bundle.load(folder)
    same = bundle.write(folder, content.manifest, content.weights, content.golden)
    assert same.version.split("-")[-1] == content.manifest.version.split("-")[-1]
    other = bundle.write(
        folder, content.manifest.model_copy(update={"network": Architecture(units=5)}), content.weights, content.golden
    )
    assert other.version.split("-")[-1] != same.version.split("-")[-1]


def test_a_bundle_is_replaced_and_anything_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    content = bundle.load(folder)
    bundle.write(folder, content.manifest, content.weights, content.golden)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    for path in (precious, precious / "thesis.tex"):
        with pytest.raises(BadBundle, match="exists and is not a bundle"):
            bundle.write(path, content.manifest, content.weights, content.golden)
    assert (precious / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "golden.npz/thesis.tex"])
def test_a_bundle_beside_other_files_is_not_replaced_because_they_would_go_with_it(folder: Path, name: str) -> None:
    content = bundle.load(folder)
    (folder / "golden.npz").unlink()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(
        BadBundle, match=f"mine: {Path(name).parts[0]} does not belong to a bundle, and would be deleted"
    ):
        bundle.write(folder, content.manifest, content.weights, content.golden)
    assert (folder / name).read_text() == "x"


def test_a_folder_with_a_bundle_json_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bundle.json").write_text('{"entry": "index.js"}')
    with pytest.raises(BadBundle, match="exists and is not a bundle"):
        bundle.check_place(tmp_path / "mine")


def test_a_link_that_leads_nowhere_is_no_place_for_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to("nowhere")
    with pytest.raises(BadBundle, match="exists and is not a bundle"):
        bundle.check_place(tmp_path / "mine")


def test_a_place_where_no_folder_can_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    for path, why in [
        (Path("file/mine"), "file/mine: no folder can be made in file: Not a directory"),
        (Path("file/deep/mine"), "file/deep/mine: no folder can be made in file/deep: Not a directory"),
        (Path("m" * 250), f"{'m' * 250}: no folder can be made in .: File name too long"),
        (Path("m" * 300), f"{'m' * 300}: no folder can be made in .: File name too long"),
        (Path(), ".: cannot be moved aside to be replaced; name a new folder"),
        (Path("deep/.."), "deep/..: cannot be moved aside to be replaced; name a new folder"),
        (Path("/"), "/: cannot be moved aside to be replaced; name a new folder"),
    ]:
        with pytest.raises(BadBundle) as error:
            bundle.check_place(path)
        assert str(error.value) == why
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    bundle.check_place(Path("deep/mine"))
    assert list(Path("deep").iterdir()) == []


def test_a_writer_that_dies_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bundle.load(folder)
    monkeypatch.setattr(bundle.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        bundle.write(folder, content.manifest, content.weights, content.golden)
    assert bundle.load(folder).manifest == content.manifest
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]


def test_files_and_both_folders_are_synced_so_that_a_power_cut_leaves_a_bundle(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, synced = bundle.load(folder), set[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    bundle.write(folder, content.manifest, content.weights, content.golden)
    assert synced == {path.stat().st_ino for path in (folder.parent, folder, *folder.iterdir())}


def refuse_to_rename(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name in names:
            raise OSError(f"{path.name} stays where it is")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)


def test_a_new_bundle_that_cannot_take_the_old_ones_place_leaves_the_old_one_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bundle.load(folder)
    refuse_to_rename(monkeypatch, "new")
    with pytest.raises(OSError, match="new stays where it is"):
        bundle.write(folder, content.manifest, content.weights, content.golden)
    assert bundle.load(folder).manifest == content.manifest
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]


def test_a_relative_link_to_the_old_bundle_is_put_back_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, link = bundle.load(folder), tmp_path / "link"
    link.symlink_to("mine")
    refuse_to_rename(monkeypatch, "new")
    with pytest.raises(OSError, match="new stays where it is"):
        bundle.write(link, content.manifest, content.weights, content.golden)
    assert link.readlink() == Path("mine")


def test_an_old_bundle_that_cannot_be_put_back_is_not_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bundle.load(folder)
    refuse_to_rename(monkeypatch, "new", "old")
    with pytest.raises(OSError, match="old stays where it is"):
        bundle.write(folder, content.manifest, content.weights, content.golden)
    [scratch] = folder.parent.iterdir()
    assert bundle.load(scratch / "old").manifest == content.manifest


def test_a_path_without_a_bundle_is_told(tmp_path: Path) -> None:
    assert told(tmp_path / "nowhere").endswith("there is no such folder")
    assert told(tmp_path).endswith("bundle.json is missing")


def test_missing_and_foreign_files_are_told(folder: Path) -> None:
    (folder / "model.keras").write_bytes(b"code")
    assert told(folder) == "mine: model.keras does not belong to a bundle"
    (folder / "model.keras").unlink()
    (folder / "golden.npz").unlink()
    assert told(folder) == "mine: golden.npz is missing"


@pytest.mark.parametrize("name", ["weights.npz", "golden.npz"])
def test_one_flipped_bit_is_told(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert told(folder).startswith(f"mine/{name}: its SHA-256 is not the one in bundle.json")


MANIFESTS: dict[str, tuple[dict[str, Any], str]] = {
    "other format": ({"format": 1}, "format: Input should be 2"),
    "no such entry": ({"code": "import os"}, "code: Extra inputs are not permitted"),
    "text for a number": ({"window": "32"}, "window: Input should be a valid integer"),
    "a window of a million": ({"window": 10**6}, "window: Input should be less than or equal to 4096"),
    "thresholds crossed": (
        {"thresholds": {"falling_on": 0.3, "falling_off": 0.4}},
        "thresholds: Value error, falling_off must not be above falling_on",
    ),
    "not a number": ({"thresholds": {"falling_on": float("nan"), "falling_off": 0.1}}, "thresholds.falling_on: "),
    "interval above": (
        {"interval": {"level": 0.9, "low": 0.1, "high": 1, "source": "held-out residuals"}},
        "interval.low: ",
    ),
    "history longer than the window": ({"min_history": 33}, "the file: Value error, min_history must be 32"),
    "a channel twice": ({"channels": ["a", "a"]}, "the file: Value error, channels must be different"),
    "a channel of no kind": (
        {"channels": ["value.mean1"]},
        "the file: Value error, channel 'value.mean1': must be NAME",
    ),
    "a channel that reaches too far": (
        {"window": 4000, "channels": ["value.mean512"]},
        "the file: Value error, a model may reach back 4096",
    ),
    "a network of no kind": ({"network": {"kind": "lambda"}}, "network.kind: Input should be 'lstm' or 'dense'"),
    "a network too wide": ({"network": {"kind": "lstm", "units": 10**6}}, "network.units: "),
    "a drop without a threshold": (
        {"label": {"rule": "drop", "look_ahead": 1}},
        "label: Value error, a threshold belongs to the rule drop",
    ),
    "a label that looks ahead for ever": (
        {"label": {"rule": "given", "look_ahead": 2**63}},
        "label.look_ahead: Input should be less than or equal to 1000000",
    ),
    "no version": ({"version": ""}, "must hold a version"),
    "strange version": ({"version": "../../etc"}, "version: String should match pattern"),
    "a file not covered": ({"files": {"weights.npz": "0" * 64}}, "must hold a version and the SHA-256"),
    "a file elsewhere": ({"files": {"../x": "0" * 64}}, "files.../x.[key]: "),
}


@pytest.mark.parametrize(("changes", "what"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_manifest_that_breaks_a_rule_is_told_with_the_rule(folder: Path, changes: dict[str, Any], what: str) -> None:
    edit(folder, **changes)
    assert told(folder).startswith(f"mine/bundle.json: {what}")


def changed(folder: Path, entry: str, **values: Any) -> dict[str, Any]:
    """The entry of bundle.json with some of its values changed."""
    return {entry: {**json.loads((folder / "bundle.json").read_text())[entry], **values}}


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ("thresholds", {"falling_on": 0.99}),
        ("interval", {"high": 9.5}),
        ("metrics", {"note": "measured by an expert"}),
        ("libraries", {"numpy": "0.1"}),
    ],
)
def test_a_manifest_that_was_changed_by_hand_is_told(folder: Path, entry: str, values: dict[str, Any]) -> None:
    edit(folder, **changed(folder, entry, **values))
    version = json.loads((folder / "bundle.json").read_text())["version"]
    line = told(folder)
    assert line.startswith(f"mine/bundle.json: is not what {version} was written with")
    assert line.endswith("put the file back as it was written, or train another bundle")
    seal(folder)
    assert bundle.load(folder).manifest.version[-6:] != version[-6:]


def test_a_version_that_was_changed_by_hand_is_told(folder: Path) -> None:
    version = bundle.load(folder).manifest.version
    edit(folder, version=f"{version[:-6]}000000")
    assert told(folder).startswith(f"mine/bundle.json: is not what {version[:-6]}000000 was written with")


def test_a_manifest_may_be_laid_out_anew(folder: Path) -> None:
    manifest = bundle.load(folder).manifest
    edit(folder)
    assert len((folder / "bundle.json").read_text().splitlines()) == 1
    assert bundle.load(folder).manifest == manifest


def test_what_a_manifest_does_not_say_is_no_part_of_its_digest(folder: Path) -> None:
    """Or each entry that is added to manifests, with a default, would make every bundle of before a forged one."""
    manifest = bundle.load(folder).manifest
    network = json.loads((folder / "bundle.json").read_text())["network"]
    edit(folder, network={name: value for name, value in network.items() if name != "members"})
    silent = bundle.read_manifest(folder)
    assert silent == manifest
    assert silent.digest != manifest.digest


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0"])
def test_a_manifest_that_is_no_json_object_is_told(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_text(text)
    assert told(folder).startswith("mine/bundle.json: the file: ")


def test_weights_of_another_shape_type_or_name_are_told(folder: Path) -> None:
    arrays(folder, "weights.npz", lambda w: w.update(lstm_bias=np.zeros(64, np.float32)))
    assert told(folder) == "mine/weights.npz: lstm_bias is float32 (64,), must be float32 (1, 128)"
    arrays(folder, "weights.npz", lambda w: w.update(lstm_bias=np.zeros(64, np.float64)))
    assert told(folder) == "mine/weights.npz: lstm_bias is float64 (64,), must be float32 (1, 128)"
    arrays(
        folder,
        "weights.npz",
        lambda w: w.update(lstm_kernel=np.zeros((1, 1, 128), np.float32, order="F"), other=w.pop("lstm_bias")),
    )
    assert told(folder).startswith("mine/weights.npz: must hold lstm_kernel, lstm_recurrent, lstm_bias")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_told(folder: Path, value: float) -> None:
    arrays(folder, "weights.npz", lambda w: w["change_kernel"].__setitem__((0, 3), value))
    assert told(folder) == "mine/weights.npz: change_kernel holds a number that is not finite"


def test_pickled_objects_are_never_loaded(folder: Path) -> None:
    trap = np.array([object()] * 128, dtype=object)
    arrays(folder, "weights.npz", lambda w: w.update(lstm_bias=trap))
    assert "lstm_bias" in told(folder)


def test_a_small_file_that_unpacks_to_a_huge_one_is_not_unpacked(folder: Path) -> None:
    with zipfile.ZipFile(folder / "weights.npz") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["lstm_bias.npy"] += b"\0" * 50_000_000
    with zipfile.ZipFile(folder / "weights.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    seal(folder)
    assert told(folder) == "mine/weights.npz: lstm_bias is larger than its shape (1, 128) allows"


def test_a_huge_file_is_not_read_whole(folder: Path) -> None:
    with (folder / "golden.npz").open("r+b") as file:
        file.truncate(10**12)  # sparse: takes no room on disk
    assert told(folder).startswith("mine/golden.npz: larger than ")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip"])
def test_a_file_that_is_no_npz_is_told(folder: Path, data: bytes) -> None:
    (folder / "weights.npz").write_bytes(data)
    seal(folder)
    assert told(folder).startswith("mine/weights.npz: not a readable .npz")


@pytest.mark.parametrize("name", ["falling_bias", "change_kernel", "lstm_recurrent"])
def test_weights_that_are_not_those_of_the_golden_outputs_are_told(folder: Path, name: str) -> None:
    arrays(folder, "weights.npz", lambda w: w[name].__setitem__(0, w[name][0] + 0.01))
    assert "of the golden windows is off by" in told(folder, load=Predictor.load)


def test_features_that_changed_since_training_are_told(folder: Path) -> None:
    arrays(folder, "golden.npz", lambda g: g["x"].__setitem__((5, 3, 0), 1.5))
    assert told(folder, load=Predictor.load).startswith("mine: golden.npz: x of the golden windows is off by")


def test_the_bundle_that_ships_is_honest_about_its_test() -> None:
    manifest = bundle.load(DEFAULT_BUNDLE).manifest
    found = manifest.metrics
    assert found.validation is not None
    assert found.test is not None
    assert found.train.last < "2015" <= found.validation.first
    assert found.validation.last < "2016" <= found.test.first
    assert manifest.label.rule == "regime"
    assert found.test.auc is not None
    assert found.test.slope_auc is not None
    assert found.test.auc > found.test.slope_auc > 0.8
    assert found.test.coverage == pytest.approx(0.9, abs=0.01)
