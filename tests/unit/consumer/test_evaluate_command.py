"""`downtick evaluate` as it is typed."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from consumer.cli import main
from model.measured import Measured
from model.predictor import DEFAULT_BUNDLE

for needed in ("lightgbm", "sklearn", "statsforecast"):
    pytest.importorskip(needed)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["evaluate", *map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


def prices(path: Path, *, stocks: int = 3, days: int = 130, column: str = "adj_close") -> Path:
    """A file that lies behind the border of the bundle that ships, so that nothing has to be trained."""
    rng = np.random.default_rng(0)
    dates = np.datetime64("2017-01-01") + np.arange(days)
    lines = [f"stock,date,{column}"]
    for stock in range(stocks):
        values = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, days)))
        lines += [f"S{stock},{date},{value:.4f}" for date, value in zip(dates, values, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_report_and_its_json_are_written_and_the_first_line_says_what_is_demonstrated(tmp_path: Path) -> None:
    code, out, err = run(DEFAULT_BUNDLE, prices(tmp_path / "p.csv"), "--out", tmp_path / "r.html", "--replicates", "20")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("better than every baseline: ")
    assert lines[1] == "294 steps of 3 stocks, 2017-02-01 to 2017-05-09"
    assert "  baselines that must be trained are left out: scored from 2016-01-01 on, no row lies before it" in lines
    assert lines[-2:] == [f"{tmp_path / 'r.html'}: the report", f"{tmp_path / 'r.json'}: its numbers"]
    found = Measured.model_validate_json((tmp_path / "r.json").read_text())
    assert found.bundle == json.loads((DEFAULT_BUNDLE / "bundle.json").read_text())["version"]
    assert found.replicates == 20
    text = (tmp_path / "r.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "p.csv: not the data that this bundle was made of" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.csv", "r.html", "r.json"]


def test_without_out_the_report_is_named_by_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(DEFAULT_BUNDLE, prices(tmp_path / "p.csv", stocks=1), "--replicates", "10")[0] == 0
    version = json.loads((DEFAULT_BUNDLE / "bundle.json").read_text())["version"]
    assert {p.name for p in tmp_path.iterdir()} == {"p.csv", f"{version}.html", f"{version}.json"}


def test_names_from_a_file_never_become_markup(tmp_path: Path) -> None:
    file = prices(tmp_path / "<script>alert(1)<|script>.csv", stocks=1)
    file.write_text(file.read_text().replace("S0,", "<script>alert(1)</script>,"))
    assert run(DEFAULT_BUNDLE, file, "--out", tmp_path / "r.html", "--replicates", "10")[0] == 0
    assert "<script" not in (tmp_path / "r.html").read_text()


def test_another_column_than_the_bundle_learned_from_is_told(tmp_path: Path) -> None:
    file = prices(tmp_path / "p.csv", stocks=1, column="close")
    code, _, err = run(DEFAULT_BUNDLE, file, "--out", tmp_path / "r.html", "--replicates", "10")
    assert code == 0
    assert err == "the bundle learned from 'adj_close', here it is 'close': --value names another column\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nowhere", "p.csv"], 1, "nowhere: there is no such folder"),
        ([DEFAULT_BUNDLE, "nowhere.csv"], 1, "nowhere.csv: No such file or directory"),
        ([DEFAULT_BUNDLE, "bad.csv"], 1, "bad.csv, row 2, column 'close': 'x' is not a finite number"),
        ([DEFAULT_BUNDLE, "both.csv"], 1, "both.csv, row 2, column 'adj_close': 'x' is not a finite number"),
        ([DEFAULT_BUNDLE, "p.csv", "--value", "open"], 1, "open"),
        ([DEFAULT_BUNDLE, "p.csv", "--test-from", "soon"], 1, "'soon' is neither a date"),
        ([DEFAULT_BUNDLE, "p.csv", "--test-from", "2020-01-01"], 1, "no row to score from 2020-01-01 on"),
        ([DEFAULT_BUNDLE, "old.csv"], 1, "no row to score from 2016-01-01 on, where the bundle's test part begins"),
        ([DEFAULT_BUNDLE, "p.csv", "--out", "r.txt"], 2, "--out r.txt: the name must end in .html"),
        ([DEFAULT_BUNDLE, "p.csv", "--out", "none/r.html"], 1, "there is no folder none"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, told: str
) -> None:
    prices(tmp_path / "p.csv", stocks=1)
    (tmp_path / "old.csv").write_text((tmp_path / "p.csv").read_text().replace("2017-", "2011-"))
    (tmp_path / "both.csv").write_text("stock,date,close,adj_close\nA,2026-01-01,1,x\n")
    (tmp_path / "bad.csv").write_text("stock,date,close\nA,2026-01-01,x\n")
    monkeypatch.chdir(tmp_path)
    found, _, err = run(*arguments)
    assert found == code
    assert err.startswith("downtick evaluate: ")
    assert told in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*.html"))


def test_a_report_never_replaces_what_was_read(tmp_path: Path) -> None:
    file = prices(tmp_path / "p.json", stocks=1)
    code, _, err = run(DEFAULT_BUNDLE, file, "--out", tmp_path / "p.html")
    assert code == 2
    assert "is one of the files to be read" in err


@pytest.mark.parametrize("name", ["r.html", "bundle.html"])
def test_a_report_is_never_written_into_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mine, file = Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "models" / "mine")), prices(tmp_path / "p.csv")
    monkeypatch.chdir(mine)
    for bundle in (".", tmp_path / "models"):
        code, _, err = run(bundle, file, "--out", name)
        assert code == 2
        assert f"--out {name}: lies in the bundle that is read" in err


def test_a_missing_extra_is_one_line_that_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    code, out, err = run(DEFAULT_BUNDLE, prices(tmp_path / "p.csv", stocks=1))
    assert (code, out) == (1, "")
    told = "this needs lightgbm, which is not installed: pip install 'downtick[training]'"
    assert err == f"downtick evaluate: {told}\n"


def test_help_teaches_and_imports_nothing_heavy() -> None:
    code = (
        "import atexit, sys; from consumer.cli import main\n"
        "heavy = {'tensorflow', 'statsforecast', 'lightgbm', 'sklearn', 'pydantic'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "main(['evaluate', '--help'])"
    )
    environment = {**os.environ, "COLUMNS": "120"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert found.stderr == "[]\n"
    assert "examples:\n  downtick evaluate models/mine prices.csv.gz --out mine.html" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 120
