import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.test_sandbox import children, gone

FAKE = Path(__file__).with_name("fake_service.py")
RUN_WITH_FAKE = """
import sys, consumer.demo, consumer.commands.demo
from consumer.cli import main
consumer.commands.demo._NO_PROGRESS = 3.0
consumer.demo.SERVICE = (sys.executable, *sys.argv[1].split("|"))
sys.exit(main(["demo", *sys.argv[2:]]))
"""


@pytest.fixture(autouse=True)
def _temporary_folders_of_the_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed cannot clean up: let its folders be pytest's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def command(fault: str, *arguments: str) -> list[str]:
    """`downtick demo` with a fake service, which does, or fails to do, all that the demo needs of it."""
    return [sys.executable, "-c", RUN_WITH_FAKE, f"{FAKE}|{fault}", *arguments]


def demo(fault: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(fault, *arguments),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, **environ},
    )


def started(*arguments: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A demo whose replay runs, and its three children."""
    process = subprocess.Popen(
        command("", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout
    for line in process.stdout:
        if "predictions" in line and " 0 predictions" not in line:
            break
    return process, children(process.pid)


def test_without_a_terminal_it_prints_lines_and_a_summary_in_which_every_update_is_accounted_for(
    tmp_path: Path,
) -> None:
    # A downtick.toml and variables of the user's own must not lead the demo elsewhere.
    (tmp_path / "downtick.toml").write_text("[kafka]\nbootstrap_servers = 'elsewhere:1'\n")
    run = subprocess.run(
        command("", "--rate", "2000", "--limit", "1500"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,  # type: ignore[call-overload]
        env={**os.environ, "DOWNTICK_KAFKA__GRUOP_ID": "misspelt", "DOWNTICK_REDIS__URL": "redis://elsewhere:1/0"},
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "\x1b" not in run.stdout
    assert re.search(r"\[ +\d+\.\d s\] Kafka on 127\.0\.0\.1:\d+", run.stdout)
    assert "done: every update is accounted for" in run.stdout
    # 1,500 updates of three stocks, each of which warms up for 31 of them.
    assert re.search(r"updates in +1,500 of 3 stocks", run.stdout)
    assert re.search(r"predictions out +1,407; 93 updates built the first windows", run.stdout)
    assert re.search(r"dead letters +0\n", run.stdout)
    assert re.search(r"latency +p50 \S+ \w+, p99 \S+ \w+ from produce", run.stdout)


def test_a_service_that_refuses_to_start_fails_the_demo_with_its_reason() -> None:
    run = demo("refuses")
    assert run.returncode == 1
    assert run.stderr == (
        "downtick demo: the service has ended (exit code 1); its last lines:\n"
        "    the bundle is broken: checksum of weights.npz\n"
    )


def test_a_service_that_dies_fails_the_demo_with_its_last_words() -> None:
    run = demo("dies")
    assert run.returncode == 1
    assert "the service has ended (exit code 7)" in run.stderr
    assert "out of memory, says the fake" in run.stderr
    assert "done" not in run.stdout


def test_an_update_without_an_answer_fails_the_demo() -> None:
    run = demo("forgets", "--rate", "0", "--limit", "1500")
    assert run.returncode == 1
    assert "the service has answered only 1,485 of 1,500 updates" in run.stderr


def test_ctrl_c_ends_the_replay_with_a_summary_and_leaves_nothing_running() -> None:
    process, parts = started("--rate", "500")
    assert len(parts) == 3
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")
    assert "\nstopped\n  updates in" in stdout
    assert all(gone(pid, within=0.5) for pid in parts)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
def test_an_ended_demo_leaves_nothing_running(number: signal.Signals, code: int) -> None:
    process, parts = started("--rate", "500")
    assert len(parts) == 3
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert all(gone(pid) for pid in parts)


def test_ctrl_c_while_starting_leaves_nothing_running() -> None:
    process = subprocess.Popen(command(""), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout
    for line in process.stdout:
        if "Redis on" in line:
            break
    time.sleep(0.05)
    parts = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "")
    assert all(gone(pid, within=0.5) for pid in parts)


def test_in_a_terminal_it_draws_a_table_in_place() -> None:
    script = [
        "script",
        "-qec",
        " ".join(map(shell_quoted, command("", "--rate", "2000", "--limit", "400"))),
        "/dev/null",
    ]
    run = subprocess.run(
        script,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    assert run.returncode == 0
    for header in ("stock", "value", "history", "falling", "forecast", "interval"):
        assert header in run.stdout
    assert "✓ " in run.stdout
    assert "400 of 400 updates sent" in run.stdout
    assert re.search(r"[▁▂▃▄▅▆▇█]{8}", run.stdout)
    assert re.search(r"latency p50 .*, p99 ", run.stdout)
    assert "done: every update is accounted for" in run.stdout


def shell_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_the_real_service_answers_every_update_of_the_real_prices() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "consumer.cli", "demo", "--rate", "0", "--limit", "4000"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "done: every update is accounted for" in run.stdout
    assert re.search(r"updates in +4,000 of 4 stocks", run.stdout)
    assert re.search(r"predictions out +3,876; 124 updates built the first windows", run.stdout)
    assert re.search(r"dead letters +0\n", run.stdout)
    # The stocks alternate between the two: as many flips down as up, but for those that are falling at the end.
    down, up = map(int, re.search(r"flips +([\d,]+) to falling, ([\d,]+) back", run.stdout).groups())
    assert 0 <= down - up <= 4
    assert down > 10
    # Forecasts were scored while it ran: near the naive forecast, and not wildly off in their interval.
    error, hits = map(
        float, re.search(r"mean error ([\d.]+) of the naive .* ([\d.]+)% of the values", run.stdout).groups()
    )
    assert 0.9 < error < 1.1
    assert 80 < hits < 98
