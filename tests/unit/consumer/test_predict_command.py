"""`downtick predict` as it is typed."""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.cli_errors import CommandError
from consumer.commands import predict
from model import train
from model.dataset import read

ROOT = Path(__file__).parents[3]
SEED = ROOT / "model" / "data" / "seed.csv"
SHIPPED = ROOT / "model" / "bundles" / "default"
PRICES = ROOT / "consumer" / "data" / "daily-us" / "stocks.csv.gz"
LONG = "stock,date,close,volume\n" + "".join(f"A,{2000 + i}-01-01,{100 + i * (-1) ** i},{i}\n" for i in range(20))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the seed table; it looks five values back."""
    path = tmp_path_factory.mktemp("models") / "seed"
    train.train(read([SEED]), train.Recipe("given", epochs=60), path)
    return path


def downtick(*arguments: str | Path) -> int:
    """The command in this process: TensorFlow takes seconds to start."""
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    return predict.run(parser.parse_args(list(map(str, arguments))))


def test_the_seed_table_shows_flag_probability_and_forecast_of_2015_for_each_stock(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert downtick(bundle, SEED) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert " ".join(lines[0]) == "stock 2014 history falling P 2015 forecast 90% interval 2015 true"
    stocks = {line[0]: line for line in lines[2:7]}
    assert [stocks[name][-1] for name in ("bar", "foo")] == ["10.00", "450.00"]
    assert stocks["bar"][3:6] == ["▼", "yes", "⇄"]
    assert [line[3] == "▼" for line in lines[2:7]] == [True, True, False, False, False]
    assert lines[7][:4] == ["5", "stocks,", "2", "falling,"]
    assert err == ""


def test_every_step_goes_to_a_file(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.csv").write_text(LONG + "B,2000-01-01,1,1\nC,2000-01-01,,1\n")
    assert downtick(bundle, tmp_path / "long.csv", "--out", tmp_path / "out.json") == 0
    assert downtick(bundle, tmp_path / "long.csv", "--out", tmp_path / "out.csv") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(f"{tmp_path / 'out.json'}: 16 predictions of 1 stocks by 20")
    assert err.splitlines()[:2] == ["1 of 22 rows have no value: left out", "B: 1 values, 5 are needed: skipped"]
    lines = [json.loads(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    assert [line["ts"] for line in lines] == [f"{2004 + i}-01-01" for i in range(16)]
    assert [line["next"] for line in lines] == [*[line["value"] for line in lines[1:]], None]
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert [float(row["forecast"]) for row in cells] == [line["forecast"] for line in lines]
    assert [row["falling"] == "true" for row in cells] == [line["falling"] for line in lines]


def test_a_long_table_shows_the_newest_step_of_each_stock(capsys: pytest.CaptureFixture[str]) -> None:
    assert downtick(SHIPPED, PRICES) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert " ".join(lines[0]) == "stock time value history falling P forecast 90% interval"
    assert [line[:2] for line in lines[2:7]] == [[s, "2013-03-01"] for s in ("AAPL", "FB", "GOOG", "IBM", "MSFT")]


def test_many_stocks_that_are_left_out_are_not_all_listed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "long.csv").write_text(LONG + "".join(f"X{i},2000-01-01,1,1\n" for i in range(1_025)))
    assert downtick(bundle, tmp_path / "long.csv") == 0
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 21
    assert err[-1] == "... and 1,005 more stocks"


def test_a_model_with_fields_says_which_columns_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.csv").write_text(LONG)
    table = read([tmp_path / "long.csv"], fields=("volume",))
    recipe = train.Recipe("drop", window=4, channels=("value", "volume"), epochs=1)
    train.train(table, recipe, tmp_path / "m")
    assert downtick(tmp_path / "m", tmp_path / "long.csv", "--out", tmp_path / "o.csv") == 0
    assert "17 predictions" in capsys.readouterr().out
    (tmp_path / "without.csv").write_text(LONG.replace("volume", "turnover"))
    for file in (tmp_path / "without.csv", SEED):
        with pytest.raises(CommandError) as error:
            downtick(tmp_path / "m", file)
        assert error.value.hint == "the model needs the columns volume beside the value"
        assert "--" not in str(error.value)  # no option of this command helps


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nowhere", "long.csv"], 1, "nowhere: "),
        ([SHIPPED, "nowhere.csv"], 1, "nowhere.csv: No such file or directory"),
        ([SHIPPED, "bad.csv"], 1, "bad.csv, row 2, column 'close': 'x' is not a finite number"),
        ([SHIPPED, "long.csv"], 1, "long.csv: none of 1 stocks can be used, as in A: 20 values, 32 are needed"),
        ([SHIPPED, "long.csv", "--out", "o.txt"], 2, "--out o.txt: the name must end in .csv, .json or .parquet"),
        ([SHIPPED, "long.csv", "--out", "./long.csv"], 2, "--out long.csv: is one of the files to be read"),
        ([SHIPPED, ".", "--out", "o.csv"], 2, "--out o.csv: would be read as a table the next time"),
        ([SHIPPED, "long.csv", "--out", SHIPPED / "o.csv"], 2, "o.csv: lies in the bundle that is read"),
        ([SHIPPED, "long.csv", "--value", "open"], 1, "long.csv, row 1: no column named open"),
        ([SHIPPED], 2, "the following arguments are required: FILE"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_before_tensorflow_starts(
    tmp_path: Path, arguments: list[str | Path], code: int, told: str
) -> None:
    (tmp_path / "long.csv").write_text(LONG)
    (tmp_path / "bad.csv").write_text("stock,date,close\nA,2026-01-01,x\n")
    program = (
        "import sys, consumer.cli; code = consumer.cli.main(sys.argv[1:]); "
        "print('tensorflow' in sys.modules); sys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "predict", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == code
    assert run.stderr.startswith("downtick predict: ")
    assert told in run.stderr
    assert "Traceback" not in run.stderr
    assert "True" not in run.stdout


def test_a_folder_that_is_not_there_and_a_broken_bundle_are_told(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        downtick(bundle, SEED, "--out", tmp_path / "no" / "o.csv")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "bundle.json").write_text("{}")
    with pytest.raises(CommandError, match="broken"):
        downtick(broken, SEED)
