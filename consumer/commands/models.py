"""`downtick models list | show | activate | rollback | shadow`: a folder of versions, and which of them count."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.cli_errors import CommandError
from consumer.rendering import count, plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from model.manifest import Manifest, Metrics
    from model.versions import Version

DESCRIPTION = """\
The versions of a model: what there is, which one predicts, and which one is tried beside it.

Let model.path name a folder of bundles. Two small text files in it decide: `current` names the bundle that predicts
(and, line by line, what predicted before it), `shadow` a candidate. Running services look every two seconds, verify
what they find and swap it between two batches; a bundle that fails is refused, and the log and
downtick_model_swaps_total say so. Without `current` the greatest version counts.

  list      all versions, newest first, with how good each was on data that it had never seen
  show      everything about one version (the active one, if none is named)
  activate  verify a version in full and let it predict; a candidate that is promoted leaves the shadow
  rollback  the version that was active before predicts again
  shadow    let a version score every update beside the active one and publish nothing: its live errors appear as
            downtick_shadow_* on /metrics, next to the active one's on the same updates; --off ends it

VERSION is a folder's name or the beginning of a version, if only one begins so.

examples:
  downtick models list --model.path models
  downtick models shadow 2026-11-30 --model.path models
  downtick models activate 2026-11-30 --model.path models
  downtick models rollback --model.path models"""

SETTINGS = ("model",)
ACTIONS = ("list", "show", "activate", "rollback", "shadow")
FOLLOWS = "running services follow within 10 s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the five actions, and what belongs to each."""
    parser.add_argument("action", choices=ACTIONS, help="look, or change which version counts")
    parser.add_argument("version", nargs="?", metavar="VERSION", help="show, activate, shadow: which one")
    parser.add_argument("--json", action="store_true", help="list, show: one JSON document")
    parser.add_argument("--off", action="store_true", help="shadow: no candidate any more")


def run(args: argparse.Namespace) -> int:
    """Do one of the five."""
    from model.bundle import BadBundle  # noqa: PLC0415  # NumPy and pydantic: --help does without

    _check_arguments(args)
    path: Path = args.settings.model.path
    actions: dict[str, Callable[[], None]] = {
        "list": lambda: _list(path, as_json=args.json),
        "show": lambda: _show(path, args.version, as_json=args.json),
        "activate": lambda: _activate(path, args.version),
        "rollback": lambda: _rollback(path),
        "shadow": lambda: _shadow(path, args.version),
    }
    try:
        actions[args.action]()
    except BadBundle as error:
        raise CommandError(plain(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or path}: {error.strerror}") from error
    return 0


def _check_arguments(args: argparse.Namespace) -> None:
    action = args.action
    if args.json and action not in {"list", "show"}:
        raise CommandError("--json belongs to list and show", code=2)
    if args.off and action != "shadow":
        raise CommandError("--off belongs to shadow", code=2)
    if args.version is not None and (action in {"list", "rollback"} or args.off):
        raise CommandError(f"{action} takes no version" if not args.off else "--off takes no version", code=2)
    if args.version is None and (action == "activate" or (action == "shadow" and not args.off)):
        raise CommandError("which version?", hint="downtick models list shows them", code=2)


# --- looking


def _list(path: Path, *, as_json: bool) -> None:
    from model import versions  # noqa: PLC0415  # as above

    found = versions.versions(path)
    if as_json:
        print(json.dumps([_document(one) for one in found]))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    folders = any(one.name != one.version for one in found)
    for name in ("version", *(["folder"] if folders else []), "label"):
        table.add_column(name, overflow="fold")
    for name in ("window", "AUC", "Brier", "skill"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for one in found:
        cells = [Text(plain(one.version)), *([Text(plain(one.name))] if folders else [])]
        table.add_row(*cells, *map(Text, _scores(one.manifest)), _standing(one))
    console = _console()
    console.print(Text(f"{path}: {_versions(len(found))}"), soft_wrap=True)
    console.print(table)
    console.print(
        Text("AUC, Brier and skill (1 - error of the forecast / error of 'no change') are of held-out data", "dim")
    )


def _console() -> Console:
    """Wide where nobody looks: a table in a file or a pipe is not to be folded."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def _versions(number: int) -> str:
    return f"{count(number)} version{'s' if number != 1 else ''}"


def _scores(manifest: Manifest | None) -> list[str]:
    """Label, window, and what is known of data that the model had not seen."""
    if manifest is None:
        return ["-"] * 5
    found = _held_out(manifest)
    skill = _skill(found)
    return [
        manifest.label.rule,
        str(manifest.window),
        _number(found.auc if found else None),
        _number(found.brier if found else None),
        "-" if skill is None else f"{skill:+.2%}",
    ]


def _held_out(manifest: Manifest) -> Metrics | None:
    return manifest.metrics.test if manifest.metrics.held_out else None


def _skill(found: Metrics | None) -> float | None:
    if found is None or found.mae is None or not found.naive_mae:
        return None
    return 1 - found.mae / found.naive_mae


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _standing(one: Version) -> Text:
    words = Text()
    if one.current:
        words.append("current ", "bold green")
    if one.shadow:
        words.append("shadow ", "cyan")
    if one.fault:
        words.append(f"broken: {plain(one.fault)}", "red")
    elif one.manifest is not None and not one.manifest.metrics.held_out:
        words.append("nothing was held out", "dim")
    return words


def _document(one: Version) -> dict[str, object]:
    manifest = one.manifest
    found = _held_out(manifest) if manifest is not None else None
    return {
        "name": one.name,
        "version": manifest.version if manifest is not None else None,
        "path": str(one.path),
        "current": one.current,
        "shadow": one.shadow,
        "fault": one.fault or None,
        "label": manifest.label.rule if manifest is not None else None,
        "window": manifest.window if manifest is not None else None,
        "fields": list(manifest.inputs.fields) if manifest is not None else None,
        "min_history": manifest.min_history if manifest is not None else None,
        "auc": found.auc if found is not None else None,
        "brier": found.brier if found is not None else None,
        "forecast_skill": _skill(found),
    }


def _show(path: Path, text: str | None, *, as_json: bool) -> None:
    from model import bundle, versions  # noqa: PLC0415  # as above

    folder = versions.resolve(path) if text is None else versions.named(path, text).path
    manifest = bundle.load(folder).manifest
    if as_json:
        print(manifest.model_dump_json())
        return
    console = _console()
    console.print(Text(f"{manifest.version}  {folder}", "bold"), soft_wrap=True)
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True, style="dim")
    lines.add_column(overflow="fold")
    for name, value in _facts(manifest):
        lines.add_row(Text(name), Text(plain(value)))
    console.print(lines)
    console.print(_metrics_table(manifest))


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    data, label, on = manifest.data, manifest.label, manifest.thresholds
    interval, training, shape = manifest.interval, manifest.training, manifest.network
    reached = f"; precision {on.precision:.3f} in validation" if on.precision is not None else ""
    members = f", average of {shape.members}" if shape.members > 1 else ""
    drop = f", a drop of {label.threshold:.3%} or more" if label.threshold is not None else ""
    dead = f", nothing said up to {label.dead_zone:+.3%}" if label.dead_zone is not None else ""
    return [
        ("data", f"{', '.join(data.files)}: {count(data.stocks)} stocks, {count(data.rows)} rows of {data.value}"),
        ("", f"{data.first} to {data.last}, sha256 {data.sha256}"),
        ("network", f"{shape.kind}, {shape.units} units{members}"),
        ("sees", f"{manifest.window} steps of {', '.join(manifest.channels)}"),
        ("needs", f"{manifest.min_history} values of a stock; fields: {', '.join(manifest.inputs.fields) or 'none'}"),
        ("falling", f"{label.rule}, known {label.look_ahead} steps later{drop}{dead}"),
        ("flag", f"on at {on.falling_on:.4f}, off below {on.falling_off:.4f}{reached}"),
        ("calibration", manifest.calibration.method),
        ("interval", f"{interval.level:.0%}: {interval.low:+.3f} to {interval.high:+.3f} scales, of {interval.source}"),
        ("training", f"seed {training.seed}, {count(training.examples)} examples"),
        ("held out", manifest.metrics.note),
        ("libraries", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())),
    ]


def _metrics_table(manifest: Manifest) -> Table:
    """Every metric of every part, as bundle.json has them."""
    parts = {
        name: found
        for name in ("train", "validation", "test")
        if (found := getattr(manifest.metrics, name)) is not None
    }
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for name in parts:
        table.add_column(name, justify="right", no_wrap=True)
    for field in type(manifest.metrics.train).model_fields:
        table.add_row(Text(field), *(Text(_cell(getattr(found, field))) for found in parts.values()))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "-" if value is None else count(value) if isinstance(value, int) else plain(value)


# --- changing


def _activate(path: Path, text: str) -> None:
    from model import versions  # noqa: PLC0415  # as above

    versions.check_is_folder_of_versions(path)
    chosen = versions.named(path, text)
    before = versions.resolved_or_none(path)
    manifest = _verified(chosen.path)
    versions.activate(path, chosen.name)
    print(f"{manifest.version} is active now; {FOLLOWS}")
    if chosen.shadow:
        versions.shadow(path, None)
        print("it was the candidate: nothing runs in shadow any more")
    _warn_of_misfit(before, manifest)


def _rollback(path: Path) -> None:
    from model import versions  # noqa: PLC0415  # as above

    now, before = versions.resolved_or_none(path), versions.before(path)
    manifest = _verified(before)
    versions.rollback(path)
    print(f"{manifest.version} is active again; {FOLLOWS}")
    _warn_of_misfit(now, manifest)


def _shadow(path: Path, text: str | None) -> None:
    from model import versions  # noqa: PLC0415  # as above

    if text is None:
        versions.shadow(path, None)
        print(f"nothing is to run in shadow; {FOLLOWS}")
        return
    versions.check_is_folder_of_versions(path)
    chosen = versions.named(path, text)
    if chosen.current:
        raise CommandError(f"{plain(chosen.version)} is the active version: there is nothing to compare it with")
    manifest = _verified(chosen.path)
    versions.shadow(path, chosen.name)
    print(f"{manifest.version} runs in shadow; {FOLLOWS}; compare it on /metrics: downtick_shadow_*")
    _warn_of_misfit(versions.resolved_or_none(path), manifest)


def _verified(folder: Path) -> Manifest:
    """The manifest of a bundle that does on this machine what it did where it was written. Raises: BadBundle."""
    from model.predictor import Predictor  # noqa: PLC0415  # TensorFlow, in the end

    return Predictor.load(folder, threads=1).manifest


def _warn_of_misfit(before: Path | None, after: Manifest) -> None:
    """Say so where workers that run with the former version will refuse this one."""
    from model import bundle  # noqa: PLC0415  # as above

    try:
        former = bundle.load(before).manifest if before is not None else None
    except bundle.BadBundle:
        former = None
    if former is None:
        return
    if former.inputs.fields != after.inputs.fields:
        what = f"needs other fields ({', '.join(after.inputs.fields) or 'none'}) than {former.version}"
    elif former.min_history < after.min_history:
        what = f"reaches back {after.min_history} values, {former.version} only {former.min_history}"
    else:
        return
    print(f"it {plain(what)}: workers that refuse it, as their log says, take it after a restart", file=sys.stderr)
