"""The kill campaign: `python -m tests.faults.campaign --kills 100` (`make kills`).

Random kills (tests/faults/kills.py) over all kinds of membership, in series of about eight; each series ends with the
whole proof. The result is written after every series, so that a campaign that was interrupted goes on where it was when
it is started again with the same commit. Exit code 0: all is proven, and enough kills met records that were waiting."""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.throughput.report import kafka_version, machine
from consumer.sandbox import EmbeddedRedis
from tests.faults.kills import MEMBERSHIPS, Kill, run_series
from tests.support.broker import Broker
from tests.support.kafka import ApacheKafka
from tests.support.reference_model import KerasModel
from tests.support.system import System

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "bench" / "results" / "kills.json"
SERIES = 8  # kills in one, about: more of them means more starts, fewer a longer proof
WAITING = 0.8  # share of the kills that must meet records that wait
_QUICK_KIP_848 = {"group.consumer.session.timeout.ms": "3000"}  # like the classic members'


def _plan(kills: int, seed: int) -> list[tuple[str, int, int]]:
    """(membership, kills, seed) of each series: every kind of membership in turn, shares as equal as may be."""
    rng, names = random.Random(seed), list(MEMBERSHIPS)
    count = max(len(names), -(-kills // SERIES)) if kills >= len(names) else kills
    sizes = [kills // count + (number < kills % count) for number in range(count)]
    return [(names[number % len(names)], size, rng.randrange(1, 10**9)) for number, size in enumerate(sizes)]


def _fresh(kills: int, seed: int, rate: float) -> dict[str, Any]:
    told = machine()
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "kills_wanted": kills,
        "load_per_second": rate,
        "machine": told | {"versions": told["versions"] | {"kafka": kafka_version()}},
        "series": [],
    }


def _same(found: dict[str, Any], fresh: dict[str, Any]) -> bool:
    names = ("kills_wanted", "load_per_second")
    same_code = found["machine"]["commit"] == fresh["machine"]["commit"]
    return same_code and all(found[name] == fresh[name] for name in names) and not found["summary"]["complete"]


def _summary(result: dict[str, Any], planned: int) -> dict[str, Any]:
    series = result["series"]
    kills = [kill | {"membership": one["membership"]} for one in series for kill in one["kills"]]
    waiting = sum(kill["waiting"] > 0 for kill in kills)
    return {
        "complete": len(series) == planned,
        "kills": len(kills),
        "proven": all(one["verdict"] == "proven" for one in series),
        "waiting": waiting,
        "waiting_share": round(waiting / len(kills), 3) if kills else 0.0,
        "steps": dict(Counter(kill["step"] for kill in kills).most_common()),
        "memberships": {
            name: {
                "kills": sum(kill["membership"] == name for kill in kills),
                "waiting": sum(kill["waiting"] > 0 for kill in kills if kill["membership"] == name),
                "series": sum(one["membership"] == name for one in series),
                "proven": sum(one["verdict"] == "proven" for one in series if one["membership"] == name),
            }
            for name in MEMBERSHIPS
        },
        "records": sum(one["records"] for one in series),
        "predictions": sum(one["predictions"] for one in series),
        "dead_letters": sum(one["dead_letters"] for one in series),
        "seconds": round(sum(one["seconds"] for one in series), 1),
    }


def _markdown(result: dict[str, Any]) -> str:
    told, summary = result["machine"], result["summary"]
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    verdict = "proven" if summary["proven"] else "NOT PROVEN"
    unfinished = "" if summary["complete"] else " (Not complete: more series are planned.)"
    lines = [
        f"""# Random kills

{summary["kills"]} × `kill -9` at random moments, under a load of {result["load_per_second"]:g} updates/s that never
pauses: **{verdict}**.{unfinished}

After each series every prediction and dead letter is compared with the reference: each exactly once, in order per
stock, flags and numbers right; Redis is the fold of the log; the committed offsets are the log's end; a second
`read_committed` reader that ran all the time saw the same. Two workers share six partitions, a third joins and leaves
(or is killed) in between. Half of the kills wait until the group has settled from the one before, the others do not.

- {summary["records"]:,} records in; {summary["predictions"]:,} predictions and {summary["dead_letters"]:,} dead letters
  compared
- {summary["waiting"]} of {summary["kills"]} kills ({summary["waiting_share"]:.0%}) struck while records waited: records
  that the log had then, at or after the committed offset of their partition, in partitions that no other worker held
- seed {result["seed"]}; began {result["began"]}, {summary["seconds"] / 60:.0f} minutes; commit {told["commit"][:12]},
  {told["changed_files"]} changed files
- {told["cpu"]}, {told["cores"]} cores, {told["memory_gb"]} GB, Linux {told["kernel"]}
- {versions}
""",
        "| membership | kills | while records waited | series proven |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['kills']} | {row['waiting']} | {row['proven']} of {row['series']} |"
            for name, row in summary["memberships"].items()
        ),
        "",
        "| step that the kill hit | kills |",
        "|---|---|",
        *(f"| {step} | {count} |" for step, count in summary["steps"].items()),
        "",
        "Made by `make kills` (tests/faults/campaign.py); each kill, with its step, in kills.json.",
        "",
    ]
    failures = [f"- {one['membership']}, seed {one['seed']}: {one['verdict']}" for one in result["series"]]
    failed = [line for line, one in zip(failures, result["series"], strict=True) if one["verdict"] != "proven"]
    return "\n".join(lines + (["What failed:", "", *failed, ""] if failed else []))


def _write(result: dict[str, Any], path: Path, planned: int) -> None:
    result["summary"] = _summary(result, planned)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(_markdown(result), encoding="utf-8")


def _shown(kill: Kill) -> dict[str, Any]:
    names = ("worker", "step", "after", "workers", "settling", "waiting")
    return {name: value for name, value in asdict(kill).items() if name in names}


def run(kills: int, seed: int, rate: float, path: Path) -> dict[str, Any]:
    """The campaign; its result, which also stands in `path` and beside it as Markdown."""
    result = _fresh(kills, seed, rate)
    if path.exists() and _same(found := json.loads(path.read_text(encoding="utf-8")), result):
        result = found
        print(f"going on after {len(result['series'])} series of seed {result['seed']}")
    planned = _plan(kills, result["seed"])
    done = sum(len(one["kills"]) for one in result["series"])
    model, began = KerasModel(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="downtick-kills-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        kafka = ApacheKafka(folder / "kafka", options=_QUICK_KIP_848)
        kafka.start()
        try:
            with EmbeddedRedis(folder / "redis") as redis:
                broker, url = Broker(kafka.bootstrap_servers), redis.start().url
                for number in range(len(result["series"]), len(planned)):
                    name, size, own_seed = planned[number]
                    struck: list[Kill] = []

                    def on_kill(kill: Kill, struck: list[Kill] = struck, done: int = done) -> None:
                        struck.append(kill)
                        minutes = (time.monotonic() - began) / 60
                        print(f"{minutes:5.1f} min  kill {done + len(struck)} of {kills}: {kill.worker}, {kill.step}")

                    def new_system(where: Path = folder / f"series-{number}", **options: Any) -> System:
                        return System(where, broker, url, model, **options)

                    started = time.monotonic()
                    outcome: dict[str, Any] = {"membership": name, "seed": own_seed, "verdict": "proven"}
                    try:
                        series = run_series(new_system, name, size, own_seed, rate=rate, on_kill=on_kill)
                    except AssertionError as error:
                        print(f"NOT PROVEN: {error}", file=sys.stderr)
                        outcome["verdict"] = str(error)
                        outcome |= {"records": 0, "predictions": 0, "dead_letters": 0}
                        outcome["seconds"] = round(time.monotonic() - started, 1)
                    else:
                        outcome |= {"records": series.records, "predictions": series.predictions}
                        outcome |= {"dead_letters": series.dead_letters, "seconds": series.seconds}
                        print(f"proven: {name}, {series.predictions:,} predictions, {series.seconds:g} s")
                    result["series"].append(outcome | {"kills": [_shown(kill) for kill in struck]})
                    done += len(struck)
                    _write(result, path, len(planned))
        finally:
            kafka.kill()
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**9), help="of the campaign (a new one)")
    parser.add_argument("--rate", type=float, default=1_000, help="updates a second (%(default)g)")
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON; Markdown is written beside it")
    given = parser.parse_args(arguments)
    summary = run(given.kills, given.seed, given.rate, given.output)["summary"]
    print(f"{summary['kills']} kills, {summary['waiting_share']:.0%} while records waited; {given.output}")
    if not summary["proven"]:
        print("NOT PROVEN", file=sys.stderr)
        return 1
    if summary["waiting_share"] < WAITING:
        print(f"fewer than {WAITING:.0%} of the kills struck while records waited", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # progress, also into a file
    sys.exit(main())
