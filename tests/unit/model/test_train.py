"""Training end to end on small data; how good the bundle that ships is stands in its own bundle.json."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import bundle
from model.dataset import read
from model.features import SCORE_CAP
from model.manifest import Architecture
from model.predictor import Predictor
from model.sheet import BadTable
from model.train import CannotTrain, Recipe, train
from tests.unit.model.series import DAY, table, walks

SEED = Path(__file__).parents[3] / "model" / "data" / "seed.csv"
QUICK = Recipe("regime", window=16, borders=(200 * DAY, 270 * DAY), epochs=2, architecture=Architecture(units=8))
BORDERS = (200, 270)


@pytest.fixture(scope="module")
def seed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("seed") / "bundle"
    train(read([SEED]), Recipe("given"), out)
    return out


def test_the_seed_table_is_learnt_and_exactly_bar_and_banana_are_flagged(seed_bundle: Path) -> None:
    seed = read([SEED])
    predictor = Predictor.load(seed_bundle)
    found = predictor.predict(np.stack([s.values for s in seed.series]))
    falling = {s.stock for s, p in zip(seed.series, found.probability, strict=True) if p >= predictor.falling_on}
    assert falling == {"bar", "banana"}
    assert (np.abs(found.probability - 0.5) > 0.4).all()
    after = np.array([s.after for s in seed.series])
    naive = np.array([s.values[-1, 0] for s in seed.series])
    assert np.abs(found.forecast - after).sum() < 0.5 * np.abs(naive - after).sum()
    assert ((found.low <= after) & (after <= found.high)).all()


def test_the_seed_bundle_says_that_nothing_was_held_out(seed_bundle: Path) -> None:
    manifest = bundle.load(seed_bundle).manifest
    assert (manifest.window, manifest.golden_rows, manifest.label.rule) == (5, 5, "given")
    assert (manifest.parts.by, manifest.parts.test_from) == ("nothing", None)
    assert not manifest.metrics.held_out
    assert "nothing held out" in manifest.metrics.note
    assert manifest.metrics.validation is None
    assert manifest.metrics.test is None
    assert manifest.interval.source == "moves of the training data"
    assert manifest.data.sha256 == hashlib.sha256(SEED.read_bytes()).hexdigest()
    assert (manifest.data.first, manifest.data.last) == ("2010", "2014")


def test_a_first_price_after_zeros_drowns_no_score(tmp_path: Path) -> None:
    values = walks(6, 340)
    values *= 2 / values.max()  # a first price of about 2 is a finite change yet, of 1e308 scales
    for stock, first in enumerate((60, 150, 220, 240, 290, 310)):
        values[stock, :first] = 0
    manifest = train(table(values), replace(QUICK, rule="drop", threshold=0.01), tmp_path / "b")
    for part in (manifest.metrics.train, manifest.metrics.validation, manifest.metrics.test):
        assert part is not None
        assert part.mae is not None
        assert part.mae < SCORE_CAP


@pytest.mark.parametrize("name", ["current", "shadow"])
def test_a_bundle_is_not_named_as_a_pointer_is(tmp_path: Path, name: str) -> None:
    with pytest.raises(bundle.BadBundle, match=f"{name}: in a folder of versions this is the name of a pointer"):
        train(table(walks(3, 340)), QUICK, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_gives_the_same_model_and_the_test_part_has_no_share_in_it(tmp_path: Path) -> None:
    values = walks(3, 340)
    other_end = values.copy()
    other_end[:, BORDERS[1] :] = walks(3, 340, seed=9)[:, BORDERS[1] :] * 7
    one = train(table(values), QUICK, tmp_path / "one")
    two = train(table(other_end), QUICK, tmp_path / "two")
    assert (tmp_path / "one" / "weights.npz").read_bytes() == (tmp_path / "two" / "weights.npz").read_bytes()
    assert (one.thresholds, one.interval, one.calibration) == (two.thresholds, two.interval, two.calibration)
    assert (one.metrics.train, one.metrics.validation) == (two.metrics.train, two.metrics.validation)
    assert one.metrics.test != two.metrics.test

    third = train(table(values), replace(QUICK, seed=2), tmp_path / "three")
    assert third.files["weights.npz"] != one.files["weights.npz"]


def test_fields_and_derived_channels_are_seen_in_training_and_in_service_alike(tmp_path: Path) -> None:
    values, volume = walks(3, 340), 1e6 * walks(3, 340, seed=4)
    data = table(values)
    series = tuple(
        replace(s, values=np.stack([s.values[:, 0], v], axis=1)) for s, v in zip(data.series, volume, strict=True)
    )
    channels = ("value", "value.mean5", "value.volatility8", "volume", "volume.return")
    manifest = train(replace(data, series=series), replace(QUICK, channels=channels, epochs=1), tmp_path / "b")
    predictor = Predictor.load(tmp_path / "b")
    assert (predictor.fields, predictor.window, predictor.reach) == (("volume",), 16, 24)
    assert (manifest.channels, manifest.min_history) == (channels, 24)
    windows = np.stack([values[:, :24], volume[:, :24]], axis=2)
    first = predictor.predict(windows)
    windows[:, 10:16, 1] *= 2
    assert not np.array_equal(predictor.predict(windows).probability, first.probability)


@pytest.mark.parametrize("network", ["lstm", "dense"])
def test_a_drop_is_learnt_where_there_is_one_to_learn(tmp_path: Path, network: str) -> None:
    # Every third change is a fall of 2 %: what comes next is plain to see.
    moves = np.where(np.arange(400) % 3 == 2, -0.02, 0.012) + np.random.default_rng(0).normal(0, 0.001, (4, 400))
    recipe = Recipe(
        "drop",
        window=8,
        threshold=0.01,
        dead_zone=0.005,
        architecture=Architecture.model_validate({"kind": network, "units": 8}),
        borders=(220 * DAY, 310 * DAY),
        epochs=8,
        learning_rate=0.01,
    )
    manifest = train(table(100 * np.exp(np.cumsum(moves, axis=1))), recipe, tmp_path / "b")
    assert (manifest.label.rule, manifest.label.threshold, manifest.label.dead_zone) == ("drop", 0.01, 0.005)
    assert manifest.network.kind == network
    found = manifest.metrics.test
    assert found is not None
    assert found.auc is not None
    assert found.auc > 0.99
    assert found.mae is not None
    assert found.naive_mae is not None
    assert found.mae < 0.5 * found.naive_mae
    assert manifest.calibration.change_shrink > 0.7
    assert manifest.thresholds.precision is not None
    assert manifest.thresholds.precision >= 0.7


def test_on_random_walks_no_forecast_is_claimed(tmp_path: Path) -> None:
    manifest = train(table(walks(20, 340)), replace(QUICK, epochs=3), tmp_path / "b")
    assert manifest.calibration.change_shrink < 0.1
    found = manifest.metrics.test
    assert found is not None
    assert found.mae == pytest.approx(found.naive_mae, rel=0.01)


def test_what_cannot_be_learnt_is_told(tmp_path: Path) -> None:
    walk = table(walks(2, 60))
    rising = table(np.exp(0.01 * np.arange(60))[None])
    for data, recipe, why in [
        (walk, Recipe("given"), "--label given needs a column"),
        (table(walks(2, 1)), Recipe("regime"), "every stock has a single value"),
        (rising, Recipe("regime"), "the labels of all windows of 32 steps are all 0"),
        (table(walks(2, 34)), Recipe("regime"), "are missing; the rule needs series of at least 40 steps"),
        (
            walk,
            replace(QUICK, borders=(58 * DAY, 59 * DAY)),
            "the validation part has no room for a window of 16 values and the next one: move the borders",
        ),
    ]:
        with pytest.raises(CannotTrain, match=why):
            train(data, recipe, tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_stocks_that_are_too_short_or_never_move_are_listed_and_skipped(tmp_path: Path) -> None:
    data = table(walks(3, 340))
    short = replace(data.series[0], stock="SHORT", times=data.series[0].times[:9], values=data.series[0].values[:9])
    still = replace(data.series[0], stock="STILL", values=np.full((340, 1), 5.0))
    lines: list[str] = []
    manifest = train(replace(data, series=(*data.series, short, still)), QUICK, tmp_path / "b", lines.append)
    assert lines[:2] == ["SHORT: 9 values, 16 are needed: skipped", "STILL: all 340 values are 5: skipped"]
    assert manifest.data.stocks == 3
    only_still = replace(data, series=(still,))
    with pytest.raises(BadTable, match="none of 1 stocks can be used"):
        train(only_still, QUICK, tmp_path / "c")


def test_a_folder_of_something_else_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    lines: list[str] = []
    with pytest.raises(bundle.BadBundle, match="exists and is not a bundle"):
        train(table(walks(2, 60)), QUICK, tmp_path, lines.append)
    assert lines == []


def test_a_network_that_nothing_would_load_is_told_before_it_is_fitted(tmp_path: Path) -> None:
    for shape, what in [
        ({"units": 1024}, "134,481,986 multiplications a window, a bundle may have 134,217,728: --units"),
        ({"kind": "dense", "units": 1024, "members": 16}, "bytes of weights, a bundle may have 67,108,864: --units"),
    ]:
        recipe = Recipe("regime", architecture=Architecture.model_validate(shape))
        lines: list[str] = []
        with pytest.raises(CannotTrain, match=what):
            train(table(walks(3, 340)), recipe, tmp_path / "b", lines.append)
        assert lines == []
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_the_service_would_refuse_does_not_replace_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b"
    version = train(table(walks(3, 340)), QUICK, out).version
    monkeypatch.setattr("model.predictor.TOLERANCE", -1.0)  # nothing is near enough
    with pytest.raises(
        CannotTrain, match=r"b: golden\.npz: x of the golden windows is off by.*: not written; "
    ) as error:
        train(table(walks(3, 340)), replace(QUICK, seed=2), out)
    assert "\n" not in str(error.value)
    assert bundle.load(out).manifest.version == version
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
