"""`history`, `state` and `dead-letters resume` on a real Redis that no service is using."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from consumer.sandbox import EmbeddedRedis, free_port
from state.layout import FALLING, FLIPPED, PREDICTED, Delta, Meta, Records, record_dtype
from state.names import nearest
from state.store import Outcome, RedisStore
from tests.support import command
from tests.support.broker import unique
from tests.support.command import Done

T0 = 1_795_444_200_000  # 2026-11-23T14:30:00Z


@pytest.fixture
def group() -> str:
    return unique("group")


@pytest.fixture
def store(shared_redis: EmbeddedRedis, group: str) -> RedisStore:
    return RedisStore(shared_redis.url, cluster=False, prefix="downtick", group=group, topic="prices")


def meta(watermark: int, *, depth: int = 4, layout: int = 1, fields: str = "", rejected: int = 0) -> Meta:
    return Meta("g1", watermark, "cluster", "", layout, depth, "2026-bundle", fields, rejected)


def records(values: list[float], *, first: int = 1, warm: int = 2, channels: int = 1) -> Records:
    """Records of one stock; those after the first `warm` are predicted: value + 1, within 0.5 of that, p 0.1234."""
    made = np.zeros(len(values), record_dtype(channels))
    for i, value in enumerate(values):
        index = first + i
        predicted = index > warm
        falling = predicted and i > 0 and value < values[i - 1]
        made[i]["index"], made[i]["offset"], made[i]["ts"] = index, index * 10, T0 + index * 60_000
        made[i]["values"] = [value, *[7.0] * (channels - 1)]
        numbers = (value + 1, value + 0.5, value + 1.5, 1.0, 0.1234) if predicted else (np.nan,) * 5
        for name, number in zip(("forecast", "low", "high", "scale", "probability"), numbers, strict=True):
            made[i][name] = number
        made[i]["flags"] = predicted * PREDICTED | falling * (FALLING | FLIPPED)
    return made


def write(
    store: RedisStore, partition: int, stocks: dict[str, Records], then: Meta, expect: Meta | None = None
) -> None:
    ones = np.ones(len(stocks), bool)
    counts = np.array([len(one) for one in stocks.values()])
    delta = Delta(list(stocks), counts, np.concatenate(list(stocks.values())), ones, ~ones)
    assert store.write(partition, expect, then, delta) is Outcome.APPLIED


def downtick(*args: str, url: str, group: str, text: str = "") -> Done:
    return command.downtick(*args, "--redis.url", url, "--kafka.group-id", group, text=text)


def keys(redis: EmbeddedRedis, group: str) -> list[str]:
    with Redis.from_url(redis.url, decode_responses=True) as client:
        return sorted(key for key in client.scan_iter(f"downtick:{{{group}/*") if isinstance(key, str))


def test_history_shows_values_forecasts_and_their_errors(
    store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    write(store, 3, {"AAPL": records([10.0, 12.0, 13.0, 13.9])}, meta(40))
    done = downtick("history", "AAPL", url=shared_redis.url, group=group)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0][:4] == ["AAPL", "13.90", "not", "falling"]
    assert "partition 3 · 4 values, the newest 4 kept · model 2026-bundle" in done.out
    assert lines[1] == ["▁▅▆█"]
    rows = [line for line in lines if line and line[0] == "2026-11-23"]
    assert rows[0] == ["2026-11-23", "14:31:00Z", "10.00", "-", "-", "warming", "up", "-", "-"]
    assert rows[2] == ["2026-11-23", "14:33:00Z", "13.00", "-", "14.00", "13.50", "…", "14.50", "0.123", "-"]
    # The forecast before was 14 within 13.5 … 14.5, and 13.9 came: off by −0.1, inside.
    assert rows[3] == ["2026-11-23", "14:34:00Z", "13.90", "-0.1000", "14.90", "14.40", "…", "15.40", "0.123", "-"]
    assert (
        "mean absolute error 0.1000 over 1 forecasts; the last value as forecast: 0.9000; in the interval: 100 %"
        in (done.out)
    )


def test_history_as_json_is_the_ring_after_it_has_wrapped(
    store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    write(store, 0, {"^GSPC": records([1.0, 2.0, 3.0], warm=0, channels=2)}, meta(30, fields="volume"))
    more = Delta(["^GSPC"], np.array([2]), records([4.0, 3.0], first=4, warm=0, channels=2), *[np.zeros(1, bool)] * 2)
    assert store.write(0, meta(30, fields="volume"), meta(50, fields="volume"), more) is Outcome.APPLIED
    done = downtick("history", "^GSPC", "--json", url=shared_redis.url, group=group)
    document = json.loads(done.out)
    rows = document.pop("history")
    assert document == {
        "stock": "^GSPC",
        "partition": 0,
        "values": 5,
        "kept": 4,
        "depth": 4,
        "generation": "g1",
        "watermark": 50,
        "model": "2026-bundle",
    }
    assert [row["value"] for row in rows] == [2.0, 3.0, 4.0, 3.0]
    assert rows[-1] == {
        "index": 5,
        "offset": 50,
        "ts": "2026-11-23T14:35:00.000Z",
        "value": 3.0,
        "fields": {"volume": 7.0},
        "predicted": True,
        "forecast": 4.0,
        "forecast_low": 3.5,
        "forecast_high": 4.5,
        "falling_probability": 0.1234,
        "falling": True,
        "flipped": True,
        "error": -2.0,
        "in_interval": False,
    }
    assert (rows[0]["error"], rows[0]["in_interval"]) == (None, None)
    done = downtick("history", "^GSPC", "--json", "--limit", "1", url=shared_redis.url, group=group)
    assert json.loads(done.out)["history"] == rows[-1:]


def test_what_was_not_predicted_and_what_overflows_is_null_in_json(
    store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    extreme = records([1e308, -1e308], warm=2)
    extreme["forecast"][0] = 1.7e308
    extreme["low"][0], extreme["high"][0], extreme["flags"][0] = 1.6e308, 1.79e308, PREDICTED
    write(store, 0, {"A": extreme}, meta(20))
    done = downtick("history", "A", "--json", url=shared_redis.url, group=group)
    last = json.loads(done.out)["history"][-1]
    assert last["value"] == -1e308
    assert last["error"] is None
    assert last["forecast"] is None
    assert last["predicted"] is False
    shown = downtick("history", "A", url=shared_redis.url, group=group)
    assert (shown.code, shown.err) == (0, "")
    assert "▁" in shown.out


def test_an_unknown_stock_is_answered_with_names_like_it(
    store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    write(store, 0, {"AAPL": records([1.0]), "IBM": records([1.0])}, meta(10))
    write(store, 5, {"AMZN": records([1.0]), "aaple": records([1.0])}, meta(10))
    assert nearest(store, "APPL") == ["AAPL", "aaple"]
    assert nearest(store, "ibm") == ["IBM"]
    assert nearest(store, "XQZW") == []
    done = downtick("history", "APPL", url=shared_redis.url, group=group)
    assert done.code == 1
    assert done.err == "downtick history: no history of 'APPL'\n  did you mean AAPL, aaple?\n"
    done = downtick("history", "A\x1b[2J", url=shared_redis.url, group=group)
    assert done.code == 2
    assert "\x1b" not in done.err


def test_a_damaged_ring_and_a_newer_layout_are_told_apart_from_a_missing_stock(
    store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    write(store, 0, {"AAPL": records([1.0, 2.0])}, meta(20))
    with Redis.from_url(shared_redis.url) as client:
        client.setrange(store.keys(0).ring("g1", "AAPL"), 0, b"\xff" * 8)
        done = downtick("history", "AAPL", url=shared_redis.url, group=group)
        assert done.err.startswith("downtick history: the history of 'AAPL' is damaged\n")
        client.hset(store.keys(0).meta, "layout", 2)
        done = downtick("history", "AAPL", url=shared_redis.url, group=group)
        assert "Redis holds layout 2, this program reads 1" in done.err


def test_a_stock_on_two_partitions_is_shown_twice_and_said_so(
    store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    write(store, 0, {"A": records([1.0])}, meta(10))
    write(store, 1, {"A": records([5.0, 6.0])}, meta(20))
    done = downtick("history", "A", "--json", url=shared_redis.url, group=group)
    assert [json.loads(line)["partition"] for line in done.out.splitlines()] == [1, 0]
    done = downtick("history", "A", url=shared_redis.url, group=group)
    assert "A is on 2 partitions: its producers do not use one partitioner" in done.out


def test_state_show_tells_what_each_partition_holds(store: RedisStore, shared_redis: EmbeddedRedis, group: str) -> None:
    write(store, 0, {"A": records([1.0]), "B": records([1.0, 2.0])}, meta(1_234, rejected=9))
    write(store, 4, {"C": records([1.0])}, meta(7, fields=""))
    with Redis.from_url(shared_redis.url) as client:
        client.delete(store.keys(4).meta)
    done = downtick("state", "show", "--json", url=shared_redis.url, group=group)
    first, second = json.loads(done.out)
    assert {name: first[name] for name in ("partition", "generation", "watermark", "stocks", "depth", "layout")} == {
        "partition": 0,
        "generation": "g1",
        "watermark": 1234,
        "stocks": 2,
        "depth": 4,
        "layout": 1,
    }
    assert (first["model"], first["cluster_id"], first["fields"], first["rejected"]) == (
        "2026-bundle",
        "cluster",
        [],
        9,
    )
    assert first["bytes"] > 3 * record_dtype(1).itemsize
    assert (second["partition"], second["generation"], second["old_generations"]) == (4, None, ["g1"])
    shown = downtick("state", "show", url=shared_redis.url, group=group).out
    row = next(line for line in shown.splitlines() if line.strip().startswith("0 "))
    assert row.split()[:3] == ["0", "1,234", "2"]
    assert "cluster cluster · model 2026-bundle · depth 4 · layout 1" in shown
    assert "9 dead letters in a row" in shown
    assert "no meta: not usable, will be rebuilt" in shown
    one = downtick("state", "show", "--json", "--partition", "4", url=shared_redis.url, group=group)
    assert [document["partition"] for document in json.loads(one.out)] == [4]


def test_state_show_gives_a_column_to_what_partitions_do_not_share(
    store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    write(store, 0, {"A": records([1.0])}, meta(10))
    write(store, 1, {"B": records([1.0])}, meta(10, depth=8))
    lines = downtick("state", "show", url=shared_redis.url, group=group).out.splitlines()
    assert "cluster cluster · model 2026-bundle · layout 1" in lines[0]
    assert [line.split()[-1] for line in lines if line.strip()[:2] in {"0 ", "1 "}] == ["4", "8"]
    assert lines[-1].strip().startswith("2 stocks, ")


def test_reset_deletes_the_named_partition_and_nothing_else(
    store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    for partition in (1, 11):
        write(store, partition, {"A": records([1.0]), "B": records([2.0])}, meta(20))
    before = keys(shared_redis, group)
    done = downtick("state", "reset", "--partition", "1", "--yes", url=shared_redis.url, group=group)
    assert (done.code, done.out) == (0, "partition 1: 4 keys deleted\n")
    assert keys(shared_redis, group) == [key for key in before if f"{group}/prices/11}}" in key]
    assert store.read_meta(11) == meta(20)


def test_reset_refuses_to_guess(store: RedisStore, shared_redis: EmbeddedRedis, group: str) -> None:
    write(store, 0, {"A": records([1.0])}, meta(20))
    before = keys(shared_redis, group)
    for args, message in (
        (["--yes"], "which partitions?"),
        (["--all"], "there is no terminal to ask on"),
        (["--partition", "3", "--yes"], "nothing of partition 3 in Redis\n  there is something of 0"),
        (["--partition", "0", "--partition", "3", "--yes"], "nothing of partition 3 in Redis"),
    ):
        done = downtick("state", "reset", *args, url=shared_redis.url, group=group, text="y\n")
        assert done.code in {1, 2}
        assert message in done.err
    assert keys(shared_redis, group) == before


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", 0)])
def test_on_a_terminal_reset_asks(
    answer: str, code: int, store: RedisStore, shared_redis: EmbeddedRedis, group: str
) -> None:
    write(store, 0, {"A": records([1.0])}, meta(20))
    parent, child = pty.openpty()
    arguments = ["state", "reset", "--all", "--redis.url", shared_redis.url, "--kafka.group-id", group]
    with subprocess.Popen(
        [sys.executable, "-m", "consumer.cli", *arguments],
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(parent, f"{answer}\n".encode())
        out, err = process.communicate(timeout=30)
    os.close(child)
    os.close(parent)
    assert process.returncode == code
    assert f"delete the histories of 1 stocks on partition 0 (group {group}, topic prices, Redis redis://127" in err
    assert ("nothing was deleted" in err) == (code == 1)
    assert (keys(shared_redis, group) == []) == (code == 0)
    assert out == ("" if code else "partition 0: 3 keys deleted\n")


def test_a_meta_nobody_can_read_can_be_reset(store: RedisStore, shared_redis: EmbeddedRedis, group: str) -> None:
    write(store, 0, {"A": records([1.0])}, meta(20))
    with Redis.from_url(shared_redis.url) as client:
        client.hset(store.keys(0).meta, "depth", "many")
    done = downtick("state", "show", url=shared_redis.url, group=group)
    assert done.code == 1
    assert "is not ours: depth is 'many', not a number" in done.err
    assert downtick("state", "reset", "--all", "--yes", url=shared_redis.url, group=group).code == 0
    assert keys(shared_redis, group) == []


def test_resume_asks_the_service_through_redis(store: RedisStore, shared_redis: EmbeddedRedis, group: str) -> None:
    for partition in (0, 1):
        write(store, partition, {"A": records([1.0])}, meta(20, rejected=10_001))
    assert not store.take_resume(0)
    done = downtick("dead-letters", "resume", "--partition", "0", url=shared_redis.url, group=group)
    assert done.out == "partition 0: asked to go on (10,001 dead letters in a row so far)\n"
    assert store.take_resume(0)
    assert not store.take_resume(0), "it is taken once"
    assert not store.take_resume(1), "only the named partition"
    downtick("dead-letters", "resume", url=shared_redis.url, group=group)
    assert store.take_resume(0)
    assert store.take_resume(1)
    assert downtick("dead-letters", "resume", "--partition", "9", url=shared_redis.url, group=group).code == 1


@pytest.mark.parametrize("args", [["history", "A"], ["state", "show"], ["state", "reset", "--all", "--yes"]])
def test_an_empty_redis_is_told_with_what_was_looked_for(
    args: list[str], shared_redis: EmbeddedRedis, group: str
) -> None:
    done = downtick(*args, url=shared_redis.url, group=group)
    assert done.code == 1
    assert f"holds nothing of group '{group}' and topic 'prices'" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "args", [["history", "A"], ["state", "show"], ["state", "reset", "--all", "--yes"], ["dead-letters", "resume"]]
)
def test_a_redis_that_is_away_is_one_clear_line_and_no_password(args: list[str]) -> None:
    started = time.monotonic()
    done = downtick(*args, url=f"redis://me:hunter22@127.0.0.1:{free_port()}/0", group="g")
    assert done.code == 1
    assert "Connection refused" in done.err
    assert len(done.err.splitlines()) == 2
    assert "hunter22" not in done.err
    assert time.monotonic() - started < 10


def test_these_commands_never_wait_for_tensorflow_or_kafka(tmp_path: Path) -> None:
    code = (
        "import sys; from consumer.cli import main\n"
        "for name in ('history', 'state', 'dead-letters', 'replay', 'watch', 'health'):\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit: pass\n"
        "print({'tensorflow', 'keras', 'model.predictor'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == "set()\n"
    assert done.stdout.count("examples:") == 6
