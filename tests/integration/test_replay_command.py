"""`downtick replay` on a real broker: all arrives once, keyed and in order, or the exit code says so."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from consumer.pricefile import parse_time, read_prices
from consumer.sandbox import EmbeddedKafka, free_port
from tests.support.broker import Broker, unique
from tests.support.command import Done, downtick
from tests.support.processes import wait_until
from tests.support.readers import Record, read

DATA = Path(__file__).parents[2] / "consumer/data/daily-us/stocks.csv.gz"


def command(*args: str, servers: str) -> list[str]:
    return [sys.executable, "-m", "consumer.cli", *args, "--kafka.bootstrap-servers", servers]


def run(*args: str, servers: str) -> Done:
    return downtick(*args, "--kafka.bootstrap-servers", servers)


@pytest.fixture
def topic(embedded: Broker) -> str:
    name = unique("replayed")
    embedded.create_topic(name, 6)
    return name


def of_stock(records: list[Record], stock: str) -> list[Record]:
    return [record for record in records if record.key == stock.encode()]


def test_every_value_arrives_once_keyed_by_stock_and_in_order_of_time(embedded: Broker, topic: str) -> None:
    done = run("replay", str(DATA), "--topic", topic, servers=embedded.bootstrap_servers)
    assert done.code == 0, done.err
    assert done.out.startswith(f"sent 12,154 updates to {topic} in ")
    records = read(embedded, topic)
    prices = read_prices(DATA)
    for code, stock in enumerate(prices.stocks):
        expected = prices.value[prices.stock == code].tolist()
        mine = of_stock(records, stock)
        assert [json.loads(record.value or b"")["value"] for record in mine] == expected
        assert len({record.partition for record in mine}) == 1
    assert len(records) == 12_154


def test_stocks_go_to_the_partitions_that_kafkas_own_clients_choose(embedded: Broker, topic: str) -> None:
    run("replay", str(DATA), "--topic", topic, "--limit", "600", servers=embedded.bootstrap_servers)
    found = {record.key: record.partition for record in read(embedded, topic)}
    assert found == {stock: _murmur2(stock) % 6 for stock in found if stock is not None}
    assert len(found) == 3


def _murmur2(data: bytes) -> int:
    """Kafka's murmur2, written after org.apache.kafka.common.utils.Utils."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    h ^= h >> 15
    return h & 0x7FFFFFFF


def test_the_murmur2_of_this_test_is_kafkas() -> None:
    # From testMurmur2 of Kafka's UtilsTest.
    assert _murmur2(b"21") == -973932308 & 0x7FFFFFFF
    assert _murmur2(b"foobar") == -790332482 & 0x7FFFFFFF
    assert _murmur2(b"a-little-bit-long-string") == -985981536 & 0x7FFFFFFF


def test_the_rate_is_kept(embedded: Broker, topic: str) -> None:
    started = time.monotonic()
    done = run(
        "replay", str(DATA), "--topic", topic, "--rate", "200", "--limit", "300", servers=embedded.bootstrap_servers
    )
    assert time.monotonic() - started >= 299 / 200
    assert done.code == 0
    sent = [record.timestamp for record in sorted(read(embedded, topic), key=lambda record: record.timestamp)]
    assert len(sent) == 300
    # Half-way through the records half of the time has passed: no burst at either end.
    assert sent[149] - sent[0] == pytest.approx(745, abs=250)
    assert sent[299] - sent[0] == pytest.approx(1495, abs=250)


def test_the_speed_is_that_of_the_files_own_time(embedded: Broker, topic: str, tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(
        "stock,ts,value\nA,2026-01-01T00:00:00Z,1\nA,2026-01-01T00:00:30Z,2\nA,2026-01-01T00:01:00Z,3\n",
        encoding="utf-8",
    )
    run("replay", str(path), "--topic", topic, "--speed", "60", servers=embedded.bootstrap_servers)
    first, second, third = (record.timestamp for record in read(embedded, topic))
    assert second - first == pytest.approx(500, abs=150)
    assert third - first == pytest.approx(1000, abs=150)


def test_ctrl_c_delivers_what_was_sent_and_counts_it(embedded: Broker, topic: str, tmp_path: Path) -> None:
    with (
        (tmp_path / "out").open("w") as out,
        subprocess.Popen(
            command("replay", str(DATA), "--topic", topic, "--rate", "100", servers=embedded.bootstrap_servers),
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        wait_until(lambda: sum(embedded.end_offsets(topic).values()) > 20, within=20, what="some records")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    text = (tmp_path / "out").read_text()
    delivered = len(read(embedded, topic))
    assert 20 < delivered < 12_154
    assert text.startswith(f"stopped: sent {delivered:,} of 12,154 updates to {topic}")


def test_a_loop_sends_the_file_again_with_the_time_of_sending_until_sigterm(
    embedded: Broker, topic: str, tmp_path: Path
) -> None:
    arguments = ("replay", str(DATA), "--topic", topic, "--loop", "--rate", "200", "--limit", "50")
    with (
        (tmp_path / "out").open("w") as out,
        subprocess.Popen(
            command(*arguments, servers=embedded.bootstrap_servers), stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        wait_until(lambda: sum(embedded.end_offsets(topic).values()) > 110, within=20, what="more than two rounds")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    records = read(embedded, topic)
    assert (tmp_path / "out").read_text().startswith(f"stopped: sent {len(records)} updates to {topic} in ")
    prices = read_prices(DATA).first(50)
    for code, stock in enumerate(prices.stocks):
        once = prices.value[prices.stock == code].tolist()
        mine = of_stock(records, stock)
        events = [json.loads(record.value or b"") for record in mine]
        assert [event["value"] for event in events] == [once[n % len(once)] for n in range(len(events))]
        times = [parse_time(event["ts"]) for event in events]
        assert times == sorted(times)
        # Kafka's timestamp is taken by the client when the update is handed over, just after the time in it.
        assert all(0 <= record.timestamp - ts <= 1000 for record, ts in zip(mine, times, strict=True))


def test_the_speed_of_a_loop_goes_on_from_round_to_round(embedded: Broker, topic: str, tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text("stock,ts,value\nA,2026-01-01T00:00:00Z,1\nA,2026-01-01T00:00:30Z,2\n", encoding="utf-8")
    arguments = ("replay", str(path), "--topic", topic, "--loop", "--speed", "60")
    with subprocess.Popen(
        command(*arguments, servers=embedded.bootstrap_servers), stdout=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: sum(embedded.end_offsets(topic).values()) >= 5, within=20, what="two rounds and a half")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    sent = [record.timestamp - read(embedded, topic)[0].timestamp for record in read(embedded, topic)[:5]]
    assert sent == pytest.approx([0, 500, 500, 1000, 1000], abs=150)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "--loop needs a pace"),
        (("--rate", "10", "--dry-run"), "--dry-run would print without end"),
        (("--speed", "10", "--limit", "1"), "--loop --speed needs a file with more than one time"),
    ],
)
def test_a_loop_that_could_not_be_held_is_refused(options: tuple[str, ...], reason: str) -> None:
    done = run("replay", str(DATA), "--loop", *options, servers=f"127.0.0.1:{free_port()}")
    assert done.code == 2
    assert done.err.startswith(f"downtick replay: {reason}")


def test_what_was_not_delivered_makes_the_exit_code_1(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka", free_port()) as kafka:
        kafka.start()
        broker = Broker(kafka.bootstrap_servers)
        broker.create_topic("prices", 2)
        with (
            (tmp_path / "out").open("w") as out,
            subprocess.Popen(
                command("replay", str(DATA), "--rate", "100", "--timeout", "2", servers=kafka.bootstrap_servers),
                stdout=out,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            wait_until(lambda: sum(broker.end_offsets("prices").values()) > 20, within=20, what="some records")
            kafka.kill()
            assert process.wait(30) == 1
    text = (tmp_path / "out").read_text()
    assert "of 12,154 updates to prices" in text
    assert "failed" in text
    assert "Connection refused" in text
    assert "Traceback" not in text


def test_no_broker_and_no_topic_are_told_with_their_cause(embedded: Broker) -> None:
    away = f"127.0.0.1:{free_port()}"
    done = run("replay", str(DATA), servers=away)
    assert done.code == 1
    assert done.err.startswith(f"downtick replay: no Kafka broker answers at {away} (")
    assert "Connection refused" in done.err
    assert done.err.count("\n") == 2
    missing = unique("missing")
    done = run("replay", str(DATA), "--topic", missing, servers=embedded.bootstrap_servers)
    assert done.code == 1
    assert f"there is no topic '{missing}'" in done.err
    assert missing not in embedded.admin.list_topics(timeout=10).topics


def test_a_broken_file_and_an_unknown_stock_send_nothing(embedded: Broker, topic: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("stock,ts,value\nA,2026-01-01,1\nA,2026-01-02,x\n", encoding="utf-8")
    done = run("replay", str(path), "--topic", topic, servers=embedded.bootstrap_servers)
    assert done.code == 1
    assert f"{path}, row 3, column 'value': 'x' is not a finite number" in done.err
    done = run("replay", str(DATA), "--stocks", "APPL", "--topic", topic, servers=embedded.bootstrap_servers)
    assert done.code == 1
    assert "has no stock 'APPL'\n  it has AAPL" in done.err
    assert read(embedded, topic) == []


def test_updates_too_far_ahead_are_warned_of(embedded: Broker, topic: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("stock,ts,value\nA,2026-01-01,1\nA,9999-01-02,2\n", encoding="utf-8")
    done = run("replay", str(path), "--topic", topic, servers=embedded.bootstrap_servers)
    assert done.code == 0
    assert "warning: 1 updates lie more than events.max_ahead (24 h) in the future" in done.err


def test_a_dry_run_needs_no_broker_and_its_pipe_may_close() -> None:
    servers = f"127.0.0.1:{free_port()}"
    done = run("replay", str(DATA), "--dry-run", "--stocks", "FB", "--limit", "1", servers=servers)
    assert done.out == '{"stock": "FB", "value": 38.2318, "ts": "2012-05-18T00:00:00Z"}\n'
    with subprocess.Popen(
        command("replay", str(DATA), "--dry-run", servers=servers), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 0
