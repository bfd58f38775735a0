"""`downtick models` as it is typed: what it prints, what it changes, and that it refuses in one line."""

import json
import shutil
from pathlib import Path

import pytest

from model import versions
from model.predictor import DEFAULT_BUNDLE
from tests.support.command import Done, downtick
from tests.support.sealed import seal
from tests.support.variants import variant


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Three versions and a broken one, made once; and the version of each folder."""
    folder = tmp_path_factory.mktemp("made")
    found = {
        "old": variant(folder / "old", seed=1),
        "new": variant(folder / "new", seed=2),
        "wide": variant(folder / "wide", seed=3, fields=("volume",)),
    }
    shutil.copytree(folder / "old", folder / "broken")
    (folder / "broken" / "golden.npz").unlink()
    return folder, found


@pytest.fixture
def models(made: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """A copy of them to change, `old` active."""
    folder = Path(shutil.copytree(made[0], tmp_path / "models"))
    versions.activate(folder, "old")
    (folder / "current").write_text("old\n")
    return folder


@pytest.fixture(scope="module")
def version(made: tuple[Path, dict[str, str]]) -> dict[str, str]:
    return made[1]


def run(models: Path, *arguments: str) -> Done:
    return downtick("models", *arguments, "--model.path", str(models))


def refused(models: Path, *arguments: str) -> str:
    """The line on stderr; nothing else was said."""
    done = run(models, *arguments)
    assert done.code in {1, 2}
    assert done.out == ""
    assert "Traceback" not in done.err
    return done.err.replace(str(models), "models")


def test_the_list_names_every_version_what_it_is_good_for_and_what_is_wrong_with_it(
    models: Path, version: dict[str, str]
) -> None:
    versions.shadow(models, "new")
    done = run(models, "list")
    assert done.code == 0
    lines = {line.split()[1]: line for line in done.out.splitlines() if len(line.split()) > 6}
    assert version["old"] in lines["old"]
    assert lines["old"].rstrip().endswith("current")
    assert lines["new"].rstrip().endswith("shadow")
    assert " regime " in lines["new"]
    assert "broken: " in lines["broken"]
    assert "golden.npz is missing" in done.out
    assert "4 versions" in done.out


def test_the_list_as_json_is_one_document(models: Path, version: dict[str, str]) -> None:
    found = {one["name"]: one for one in json.loads(run(models, "list", "--json").out)}
    assert found["old"] | {"path": ""} == {
        "name": "old",
        "version": version["old"],
        "path": "",
        "current": True,
        "shadow": False,
        "fault": None,
        "label": "regime",
        "window": 32,
        "fields": [],
        "min_history": 32,
        "auc": pytest.approx(0.82, abs=0.02),
        "brier": pytest.approx(0.16, abs=0.02),
        "forecast_skill": pytest.approx(0, abs=0.02),
    }
    assert found["wide"]["fields"] == ["volume"]
    assert found["broken"]["fault"].endswith("golden.npz is missing")
    assert found["broken"]["version"] is None


def test_one_version_is_shown_the_active_one_if_none_is_named(models: Path, version: dict[str, str]) -> None:
    done = run(models, "show")
    assert done.out.startswith(version["old"])
    for text in ("prices.csv.gz", "32 steps of value", "regime, known 8 steps later", "base_brier"):
        assert text in done.out
    assert run(models, "show", version["new"]).out.startswith(version["new"])
    assert json.loads(run(models, "show", "wide", "--json").out)["channels"] == ["value", "volume"]
    assert "golden.npz is missing" in refused(models, "show", "broken")


def test_a_version_is_activated_by_its_name_or_the_beginning_of_its_version_and_rolled_back(
    models: Path, version: dict[str, str]
) -> None:
    assert run(models, "activate", version["new"]).out == (
        f"{version['new']} is active now; running services follow within 10 s\n"
    )
    assert versions.resolve(models).name == "new"
    assert run(models, "rollback").out == f"{version['old']} is active again; running services follow within 10 s\n"
    assert versions.resolve(models).name == "old"
    assert refused(models, "rollback") == (
        "downtick models: models/current: names nothing that was active before; `activate` the version you want\n"
    )


def test_what_running_workers_will_refuse_is_said_at_once(models: Path, version: dict[str, str]) -> None:
    done = run(models, "activate", "wide")
    assert done.code == 0
    what = f"it needs other fields (volume) than {version['old']}"
    assert done.err == f"{what}: workers that refuse it, as their log says, take it after a restart\n"


def test_a_bundle_that_is_broken_or_computes_something_else_is_not_activated(models: Path) -> None:
    assert refused(models, "activate", "broken") == "downtick models: models/broken: golden.npz is missing\n"
    shutil.copy(models / "old" / "weights.npz", models / "new" / "weights.npz")
    seal(models / "new")
    for action in ("activate", "shadow"):
        assert "of the golden windows is off by" in refused(models, action, "new")
    assert versions.resolve(models).name == "old"
    assert versions.candidate(models) is None


def test_a_candidate_is_named_taken_back_and_promoted(models: Path, version: dict[str, str]) -> None:
    assert run(models, "shadow", "new").out == (
        f"{version['new']} runs in shadow; running services follow within 10 s; compare it on /metrics: "
        "downtick_shadow_*\n"
    )
    assert versions.candidate(models) == models / "new"
    assert run(models, "shadow", "--off").out == "nothing is to run in shadow; running services follow within 10 s\n"
    assert versions.candidate(models) is None
    run(models, "shadow", "new")
    assert run(models, "activate", "new").out.endswith("it was the candidate: nothing runs in shadow any more\n")
    assert versions.candidate(models) is None
    assert "is the active version: there is nothing to compare it with" in refused(models, "shadow", "new")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["activate"], "which version?"),
        (["shadow"], "which version?"),
        (["list", "new"], "list takes no version"),
        (["rollback", "new"], "rollback takes no version"),
        (["shadow", "new", "--off"], "--off takes no version"),
        (["activate", "new", "--json"], "--json belongs to list and show"),
        (["show", "--off"], "--off belongs to shadow"),
        (["activate", "nothing"], "models: no version is called 'nothing'"),
        (["activate", "../old"], "models: no version is called '../old'"),
        (["activate", "20"], "versions are called '20': "),
        (["destroy"], "invalid choice: 'destroy'"),
    ],
)
def test_what_it_does_not_understand_is_said_and_nothing_changes(models: Path, arguments: list[str], why: str) -> None:
    before = sorted((entry.name, entry.stat().st_mtime_ns) for entry in models.iterdir())
    line = refused(models, *arguments)
    assert line.startswith("downtick models: ")
    assert why in line
    assert sorted((entry.name, entry.stat().st_mtime_ns) for entry in models.iterdir()) == before


def test_one_bundle_can_be_looked_at_but_not_chosen_from(tmp_path: Path) -> None:
    done = downtick("models", "list")
    assert done.code == 0
    assert "1 version" in done.out
    shutil.copytree(DEFAULT_BUNDLE, tmp_path / "one")
    for action in (["activate", "one"], ["rollback"], ["shadow", "one"], ["shadow", "--off"]):
        assert "is one bundle, not a folder of versions" in refused(tmp_path / "one", *action)


def test_a_folder_that_may_not_be_written_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system", str(models / "current"))

    monkeypatch.setattr(versions, "_write", full)
    assert refused(models, "activate", "new") == "downtick models: models/current: Read-only file system\n"
