"""What was measured, on what, as JSON for machines and Markdown for people."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Any

from bench.machine import ROOT, host, output
from bench.throughput.backlog import STAGES, WARM_UP
from bench.throughput.ground import PARTITIONS
from bench.throughput.latency import SETTLE
from consumer.sandbox import redis_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.throughput.backlog import Result

Runs = dict[str, list["Result"]]
PACKAGES = ("numpy", "tensorflow-cpu", "tensorflow", "keras", "confluent-kafka", "redis", "noida-db", "downtick")
TITLES = {
    "ceiling": "a: bare consume → produce, exactly once",
    "service": "b: downtick",
    "predict": "c: one by one, `model.predict`",
    "call": "d: one by one, model called directly",
}


def machine() -> dict[str, Any]:
    """This machine and the versions of everything that takes part."""
    found = host(PACKAGES)
    told = output([redis_server(), "--version"])
    found["versions"]["librdkafka"] = _librdkafka()
    found["versions"]["redis-server"] = match[1] if (match := re.search(r"v=(\S+)", told)) else told
    return found


BROKERS = {
    "embedded": "embedded broker",
    "in-memory": "embedded broker, its files in memory",
    "apache": "Apache Kafka",
}


def kafka_version() -> str:
    """Of Apache Kafka, as tests/pom.xml names it."""
    text = (ROOT / "tests" / "pom.xml").read_text(encoding="utf-8")
    found = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([^<]+)", text)
    named = re.search(r"<kafka\.version>([^<]+)", text)
    return named[1] if named else found[1] if found else "unknown"


def _librdkafka() -> str:
    import confluent_kafka  # noqa: PLC0415  # one number of it

    return str(confluent_kafka.libversion()[0])


def summary(runs: Runs) -> dict[str, dict[str, dict[str, float]]]:
    """Median, least and most of each number of each measurement; and the ratios, of medians."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, results in runs.items():
        found[name] = {key: _spread([result[key] for result in results]) for key in results[0] if key in results[-1]}
    ratios = {}
    for name in ("ceiling", "predict", "call"):
        if "service" in runs and name in runs:
            pairs = zip(runs["service"], runs[name], strict=False)
            each = [b["updates_per_second"] / other["updates_per_second"] for b, other in pairs]
            ratios[f"service/{name}"] = _spread(each)
    if ratios:
        found["ratios"] = ratios
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def markdown(document: Mapping[str, Any]) -> str:
    """The whole result as a page."""
    found, host, given = document["summary"], document["machine"], document["input"]
    versions = ", ".join(f"{name} {number}" for name, number in host["versions"].items())
    kafka = f", Apache Kafka {document['kafka']}" if document.get("kafka") else ""
    changed = f" with {host['changed_files']} changed files" if host["changed_files"] else ""
    lines = [
        "# Throughput, latency, memory",
        "",
        f"Machine: {host['cpu']}, {host['cores']} cores, {host['memory_gb']} GB, Linux {host['kernel']};",
        f"load before the run {host['load_before']}. Broker, Redis, worker and reader share it.",
        "",
        f"Versions: {versions}{kafka}. Commit `{host['commit'][:12]}`{changed}. Date: {document['date']}.",
        "",
        f"By `{document['command']}`. A figure with a range is the median of {given['runs']} runs (least – most); each",
        "run has a fresh broker, Redis and process.",
        "",
    ]
    lines += _throughput(found, given) if "service" in found or "ceiling" in found else []
    lines += _stages(found["service"]) if "service" in found else []
    lines += _latency(found, given)
    lines += _memory(found["memory"]) if "memory" in found else []
    return "\n".join([*lines, *[f"**Not measured:** {note}\n" for note in document["notes"]]])


def _throughput(found: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Throughput",
        "",
        f"Input: a backlog of {given['updates']:,} updates of {given['stocks']:,} stocks on {PARTITIONS}",
        f"partitions, batches of at most {given['batch']:,}, broker: {given['broker']}. Before it each stock had",
        f"{WARM_UP} updates, which the service worked off and which are not counted: so each counted update has a",
        "prediction.",
        f"c and d ran for {given['naive_seconds']:g} s each, on full histories, their first records not counted.",
        "The clock of a and b runs from the assignment of the partitions to the last commit: fetching is in it, and",
        "b's loading of the histories. CPU is user + system of the worker process alone, over the same stretch.",
        "",
        "| | updates/s | CPU µs/update | broker CPU µs/update | Redis CPU µs/update | peak memory MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        if name not in found:
            continue
        one = found[name]
        cells = [_cell(one["updates_per_second"], 0 if one["updates_per_second"]["median"] > 1000 else 1)]
        cells += [_cell(one[f"{part}cpu_us_per_update"], 1) for part in ("", "broker_", "redis_")]
        lines.append(f"| {title} | {' | '.join(cells)} | {_cell(one['peak_memory_bytes'], 0, 1e-6)} |")
    names = {"service/ceiling": ("b/a", 2), "service/predict": ("b/c", 0), "service/call": ("b/d", 0)}
    ratios = [
        f"**{names[name][0]} = {_cell(value, names[name][1])}**" for name, value in found.get("ratios", {}).items()
    ]
    return [*lines, "", ", ".join(ratios), ""]


def _stages(one: Mapping[str, Any]) -> list[str]:
    total = 1e6 / one["updates_per_second"]["median"]
    lines = ["### Where the service's time goes", "", "| stage | µs/update | share |", "|---|---|---|"]
    for stage in (*STAGES, "other"):
        value = one[f"{stage}_us_per_update"]
        label = "other (poll, fold, count)" if stage == "other" else stage
        lines.append(f"| {label} | {_cell(value, 2)} | {value['median'] / total:.0%} |")
    batch = one["updates_per_batch"]["median"]
    return [*lines, "", f"Wall time of the engine's thread; {batch:,.0f} updates per batch.", ""]


def _latency(found: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    rows = [(name, one) for name, one in found.items() if name.startswith("latency ")]
    if not rows:
        return []
    lines = [
        "## Latency",
        "",
        f"{given['rate']:,} updates/s offered for {given['latency_seconds']:g} s (after {SETTLE:g} s not counted),",
        f"keyed, over {given['latency_stocks']:,} stocks with full windows; from just before produce() (linger 0)",
        "to the record in the hands of a read_committed reader, same host, same clock. Milliseconds.",
        "The embedded broker writes all of its log every second or so and answers nobody meanwhile: the rows with its",
        "files in memory (/dev/shm) are without this machine's disk.",
        "",
        "| | p50 | p90 | p99 | p99.9 | max | CPU µs/update |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in rows:
        _, where, kind = name.split()
        who = "downtick" if kind == "service" else "bare exactly-once loop"
        cells = [_cell(one[key], 1) for key in ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")]
        lines.append(f"| {who}, {BROKERS[where]} | {' | '.join(cells)} | {_cell(one['cpu_us_per_update'], 0)} |")
    return [*lines, ""]


def _memory(one: Mapping[str, Any]) -> list[str]:
    stocks, depth = int(one["stocks"]["median"]), int(one["depth"]["median"])
    peak, ready = _cell(one["peak_memory_bytes"], 0, 1e-6), _cell(one["peak_memory_after_load_bytes"], 0, 1e-6)
    load, start = _cell(one["load_seconds"], 2), _cell(one["start_seconds"], 1)
    return [
        "## Memory",
        "",
        f"One worker with {stocks:,} stocks on {PARTITIONS} partitions, rings of {depth} records, all full",
        "(the service made the stocks; the rings were filled through the store's API):",
        "",
        f"- peak resident memory of the worker, over its start and one update of every stock: **{peak} MB**",
        f"  ({ready} MB when it was ready)",
        f"- reading all rings from Redis: {load} s; from the start of the process to ready: {start} s",
        f"- Redis itself: {_cell(one['redis_bytes'], 0, 1e-6)} MB",
        "",
    ]


def _cell(value: Mapping[str, float], digits: int, factor: float = 1.0) -> str:
    median, least, most = (f"{value[key] * factor:,.{digits}f}" for key in ("median", "min", "max"))
    return median if least == most else f"{median} ({least} – {most})"
