"""`downtick train` as it is typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.cli import main

SEED = Path(__file__).parents[3] / "model" / "data" / "seed.csv"
LONG = "stock,date,close\n" + "".join(f"A,{2000 + i}-01-01,{100 + i * (-1) ** i}\n" for i in range(20))

LONG_ROWS = "A,2026-01-01,1,1\nA,2026-01-02,2,1"


def downtick(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "consumer.cli", *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS_"))}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)


def test_the_seed_table_makes_a_bundle_and_the_scores_are_not_praised(tmp_path: Path) -> None:
    run = downtick("train", SEED, "--out", tmp_path / "mine")
    assert (run.returncode, run.stderr) == (0, "")
    assert "the longest series has 5 steps: the window is 5, instead of 32" in run.stdout
    assert "nothing held out" in run.stdout
    assert "the data it was trained on, which says nothing about new data: 5 windows" in run.stdout
    assert f"serve it: downtick run --model.path {tmp_path / 'mine'}" in run.stdout
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["bundle.json", "golden.npz", "weights.npz"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nowhere.csv"], 1, "nowhere.csv: No such file or directory"),
        (["bad.csv"], 1, "bad.csv, row 2, column 'close': 'x' is not a finite number"),
        (["long.csv", "--label", "given"], 1, "--label given needs a column `falling` or `label`"),
        (["long.csv", "--test-from", "2010-01-01"], 2, "--validation-from and --test-from go together"),
        (["long.csv", "--test-from", "2010-01-01", "--validation-from", "2011-01-01"], 2, "--test-from must be later"),
        (["long.csv", "--test-from", "soon", "--validation-from", "2011-01-01"], 1, "'soon' is neither a date"),
        (["long.csv", "--look-ahead", "3"], 2, "--look-ahead is for --label given; here it is regime"),
        (["long.csv", "--threshold", "0.1"], 2, "--threshold is for --label drop; here it is given or regime"),
        (["long.csv", "--channels", "value,volume"], 1, "no column named volume; there are stock, date, close: rename"),
        (["long.csv", "--channels", "value,volume"], 1, "--channels asks for the columns volume beside the value"),
        (["long.csv", "--channels", "value.mean"], 2, "channel 'value.mean': must be NAME, NAME.change"),
        (["long.csv", "--precision", "2"], 2, "must be a number above 0 and below 1, not '2'"),
        (["long.csv", "--members", "17"], 2, "argument --members: must be a whole number, from 1 to 16"),
        (["long.csv", "--window", "1"], 2, "argument --window: must be a whole number, at least 2"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, told: str
) -> None:
    (tmp_path / "long.csv").write_text(LONG)
    (tmp_path / "bad.csv").write_text("stock,date,close\nA,2026-01-01,x\n")
    monkeypatch.chdir(tmp_path)
    run = downtick("train", *arguments, "--out", "mine")
    assert run.returncode == code
    assert run.stderr.startswith("downtick train: ")
    assert told in run.stderr
    assert "Traceback" not in run.stderr
    assert "--fields" not in run.stderr  # which is not an option of this command
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("options", "row"),
    [("", "A,2026-01-01,x,1"), ("--value open", "A,2026-01-01,1,1"), ("--test-from x --validation-from y", LONG_ROWS)],
)
def test_the_columns_of_channels_are_no_hint_where_none_of_them_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, row: str
) -> None:
    (tmp_path / "p.csv").write_text(f"stock,date,close,volume\n{row}\n")
    arguments = ["--channels", "value,volume", "--out", str(tmp_path / "m"), *options.split()]
    assert main(["train", str(tmp_path / "p.csv"), *arguments]) == 1
    assert "--channels" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--label drop --dead-zone -0.01", "--dead-zone must be above -0.005, where falling begins (--threshold)"),
        ("--label drop --dead-zone -0.1 --threshold 0.1", "--dead-zone must be above -0.1, where falling begins"),
        ("--label drop --dead-zone 2", "argument --dead-zone: must be a number above -1 and below 1, not '2'"),
        ("--label drop --dead-zone nan", "argument --dead-zone: must be a number above -1 and below 1, not 'nan'"),
        ("--label regime --dead-zone 0", "--dead-zone is for --label drop; here it is regime"),
        ("--seed 4294967296", "argument --seed: must be a whole number, from 0 to 2147483647, not '4294967296'"),
        ("--look-ahead 9223372036854775808", "argument --look-ahead: must be a whole number, from 1 to 1000000"),
    ],
)
def test_bad_options_are_told_before_anything_is_read(
    options: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "nowhere.csv", "--out", "mine", *options.split()]
    try:
        code = main(arguments)
    except SystemExit as error:  # argparse's own way out
        code = error.code
    line = capsys.readouterr().err.splitlines()[0]
    assert code == 2
    assert line.startswith(f"downtick train: {told}")
