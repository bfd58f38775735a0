"""Prediction files: the same rows in three forms, whole or not at all."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consumer.outputs import FALSE, TRUE, PredictionEncoder, format_ts
from consumer.predictionfile import NAMES, CannotWrite, Rows, writing
from tests.unit.consumer.doubles import NOON_MS

ROWS = Rows(
    stock=['A"1', "B"],
    ts=["2024-01-01T12:00:00Z", "2024-01-01T12:00:01Z"],
    ts_ms=np.array([NOON_MS, NOON_MS + 1000]),
    value=np.array([0.1 + 0.2, 1e300]),
    falling=np.array([True, False]),
    falling_probability=np.array([1 / 3, 1e-9], np.float32),
    flipped=np.array([False, True]),
    forecast=np.array([1 / 3, -1e300]),
    forecast_low=np.array([-2 / 3, -2e300]),
    forecast_high=np.array([2e-300, 2 / 3]),
    window=32,
    model="v1",
    next=np.array([np.nan, 7.25]),
)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_file_holds_all_rows_that_were_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with writing(path) as writer:
        writer.write(ROWS)
        writer.write(replace(ROWS, stock=["C", "D"]))
    assert [row["stock"] for row in rows(path)] == ['A"1', "B", "C", "D"]
    assert [list(row) for row in rows(path)] == [list(NAMES)] * 4
    assert list(tmp_path.iterdir()) == [path]


def rows(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        found: list[dict[str, object]] = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        return found
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(text.splitlines()))


def test_json_says_what_the_output_topic_says_with_the_same_digits(tmp_path: Path) -> None:
    with writing(tmp_path / "out.json") as writer:
        writer.write(ROWS)
    encode = PredictionEncoder(ROWS.window, ROWS.model, "prices", 0).encode
    for i, found in enumerate(rows(tmp_path / "out.json")):
        topic = json.loads(
            encode(
                (
                    ROWS.stock[i].replace('"', '\\"').encode(),
                    format_ts(int(ROWS.ts_ms[i])),  # type: ignore[index]
                    float(ROWS.value[i]),
                    TRUE if ROWS.falling[i] else FALSE,
                    float(ROWS.falling_probability[i]),
                    TRUE if ROWS.flipped[i] else FALSE,
                    float(ROWS.forecast[i]),
                    float(ROWS.forecast_low[i]),
                    float(ROWS.forecast_high[i]),
                    i,
                )
            )
        )
        del topic["source"], topic["ts"]
        assert found.pop("next") == (None, 7.25)[i]
        assert found.pop("ts") == ROWS.ts[i]
        assert found == topic


def test_a_csv_has_words_for_flags_and_nothing_for_what_is_not_known(tmp_path: Path) -> None:
    with writing(tmp_path / "out.csv") as writer:
        writer.write(ROWS)
    assert (tmp_path / "out.csv").read_bytes().decode().split("\n") == [
        ",".join(NAMES),
        '"A""1",2024-01-01T12:00:00Z,0.30000000000000004,true,0.3333333,false,0.333333333333,-0.666666666667,2e-300,32,v1,',
        "B,2024-01-01T12:00:01Z,1e+300,false,1e-09,true,-1e+300,-2e+300,0.666666666667,32,v1,7.25",
        "",
    ]


def test_parquet_keeps_every_bit_and_its_times_are_timestamps(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "out.parquet"
    with writing(path) as writer:
        writer.write(ROWS)
    first, second = rows(path)
    assert (first["forecast"], first["falling_probability"]) == (1 / 3, float(np.float32(1 / 3)))
    assert (first["next"], second["next"], second["falling"]) == (None, 7.25, False)
    assert second["ts"].isoformat() == "2024-01-01T12:00:01+00:00"  # type: ignore[attr-defined]
    with writing(path) as writer:
        writer.write(replace(ROWS, ts=["2013", "2014"], ts_ms=None))
    assert [row["ts"] for row in rows(path)] == ["2013", "2014"]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_failure_leaves_the_former_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("former")

    def interrupted() -> None:
        with writing(path) as writer:
            writer.write(ROWS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    for path, message in [(tmp_path / "out.csv", "is a folder"), (tmp_path / "no" / "out.csv", "No such file")]:
        with pytest.raises(CannotWrite, match=message), writing(path):
            pass


def test_parquet_without_pyarrow_names_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path; from consumer.predictionfile import writing, CannotWrite\n"
        "try:\n  with writing(Path('out.parquet')): pass\n"
        "except CannotWrite as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert run.stdout == "Parquet needs more than is installed: pip install 'downtick[training]'\n"
    assert list(tmp_path.iterdir()) == []
