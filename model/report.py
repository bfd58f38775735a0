"""The evaluation as one HTML file: tables, plots and plain words; no script, nothing from anywhere else.

Every text that comes from outside (names of files, of steps, of a bundle) is escaped where it is put in."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from model import plots
from model.held_out import LEAST_UNITS
from model.measured import METRICS, outcome
from model.plots import Bar
from model.verdict import headline, interval, number, sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.measured import Flag, Forecast, ForecastRow, Interval, Lead, LossTest, Measured, Number, Row, Sample


_SCALES = "Errors are in scales of the window (its mean absolute step), so that stocks weigh alike."
_PINBALL = "Pinball loss is least for the true quantiles: it weighs coverage and width at once."
_PAGE = Path(__file__).parent / "data" / "report.html"


def render(found: Measured) -> str:
    """The whole page."""
    sections = [_summary(found), _rows(found)]
    if found.flag is not None:
        sections.append(_flag(found.flag))
    if found.forecast is not None:
        sections.append(_forecast(found.forecast))
    if found.interval is not None:
        sections.append(_interval(found.interval))
    if len(found.periods) > 1:
        sections.append(_over_time(found))
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        version=escape(found.bundle),
        body="\n".join(sections),
        level=f"{found.level:.0%}",
        replicates=f"{found.replicates:,}",
        seed=found.seed,
        least=LEAST_UNITS,
        words=_glossary(),
    )


def _summary(found: Measured) -> str:
    lines = "".join(f"<li>{_words(line)}</li>" for line in sentences(found))
    return f'<section class="verdict"><p><strong>{_words(headline(found))}</strong></p><ul>{lines}</ul></section>'


def _rows(found: Measured) -> str:
    held = found.held
    same = "the data that this bundle was made of" if held.same_data else "not the data that this bundle was made of"
    facts = {
        "bundle": found.bundle,
        "falling means": found.label,
        "files": f"{', '.join(held.files)}: {same} (SHA-256 {held.sha256[:12]}…)",
        "scored": f"{held.rows:,} steps of {held.stocks:,} stocks, {held.first} to {held.last}",
        "validation from, scored from": f"{held.validation_from or '–'}, {held.test_from or 'the first row'}",
        "baselines learnt from": f"{held.train_rows:,} steps, calibrated on {held.validation_rows:,}"
        if held.train_rows
        else "nothing: see below",
    }
    listed = "".join(f"<dt>{_words(name)}</dt><dd>{_words(text)}</dd>" for name, text in facts.items())
    notes = "".join(f"<li>{_words(note)}</li>" for note in found.notes)
    return f"<h2>What was scored</h2><dl>{listed}</dl>" + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _flag(flag: Flag) -> str:
    names = ("auc", "pr_auc", "mcc", "brier", "log_loss", "ece")
    base = (
        ""
        if flag.base_rate is None
        else f" Falling: {flag.base_rate:.1%} of them, which is the PR-AUC of knowing nothing."
    )
    wanted = (
        "MCC is that of the published flag; without a validation part the baselines have no threshold."
        if flag.wanted_precision is None
        else "MCC is that of the published flag, hysteresis included; each baseline's threshold was set to the same "
        f"precision on the validation part ({flag.wanted_precision:.3f})."
    )
    drawn = [
        _forest("ROC-AUC: bundle minus baseline", "difference of ROC-AUC", flag.models, "auc"),
        _forest("Log loss: bundle minus baseline", "difference of log loss, nats", flag.models, "log_loss"),
        plots.reliability("Reliability of the bundle's probability", flag.reliability) if flag.reliability else "",
    ]
    if flag.lead is not None and flag.lead.counts:
        drawn.append(
            plots.histogram(
                "Lead over the trailing slope", "steps earlier (right) or later (left) than the slope", flag.lead.counts
            )
        )
    return "".join(
        [
            "<h2>Is it falling?</h2>",
            f"<p>{_sample(flag.sample)}{base} {_words(wanted)}</p>",
            _table("Scores", flag.models, names),
            _differences("Bundle minus baseline", flag.models[1:], names),
            _figures(drawn),
            "" if flag.lead is None else _lead(flag.lead),
        ]
    )


def _lead(lead: Lead) -> str:
    """Said in words: what counts as a lead is easily misread."""
    rows = "".join(
        f"<tr><th>{name}</th><td>{number(d.threshold, 3)}</td><td>{number(d.validation_precision, 3)}</td>"
        f"<td>{number(d.precision, 3)}</td><td>{number(d.recall, 3)}</td><td>{d.found:,}</td>"
        f"<td>{lead.stretches - d.found:,}</td></tr>"
        for name, d in (("this bundle", lead.bundle), ("trailing slope", lead.slope))
    )
    mean, median = lead.mean, lead.median
    return (
        "<h3>How early is a falling stretch flagged?</h3>"
        f"<p>Both detectors have a single threshold, set to a precision of {lead.wanted_precision:.3f} on the "
        f"validation part. Of each of the {lead.stretches:,} falling stretches whose begin is seen, the first flag "
        f"counts from {lead.before} steps before its begin to its end. On the {lead.both:,} stretches that both found, "
        f"the bundle is <strong>{number(mean.point, 2, sign=True)} steps</strong> earlier on average "
        f"{interval(mean, 2)}, {number(median.point, 0)} in the median {interval(median, 0)}. {lead.only_bundle:,} "
        f"stretches were found by the bundle only, {lead.only_slope:,} by the slope only.</p>"
        '<div class="scroll"><table><thead><tr><th></th><th>threshold</th><th>precision, validation</th>'
        "<th>precision, scored</th><th>recall of steps</th><th>stretches found</th><th>missed</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _forecast(forecast: Forecast) -> str:
    names = ("mae_ratio", "rmse_ratio", "mae", "rmse", "mase")
    tail = (
        f" The largest change is {forecast.largest:,.0f} scales: a few such rows rule the RMSE."
        if forecast.largest > 32
        else ""
    )
    return "".join(
        [
            "<h2>What comes next?</h2>",
            f"<p>{_sample(forecast.sample)} {_SCALES}{tail}</p>",
            _table("Scores", forecast.models, names),
            _differences("Bundle minus baseline", forecast.models[1:], ("mae", "rmse", "mase")),
            _tests(forecast.models[1:], _MANY[forecast.sample.unit]),
            _figures([_forest("MAE: bundle minus baseline", "difference of MAE, scales", forecast.models, "mae")]),
        ]
    )


def _interval(section: Interval) -> str:
    names = ("coverage", "width", "pinball", "pinball_low", "pinball_high")
    covered = [_bar(row.title, row.scores["coverage"]) for row in section.models]
    return "".join(
        [
            "<h2>How far may it move?</h2>",
            f"<p>{_sample(section.sample)} It should hold {section.level:.0%} of the next values. {_PINBALL}</p>",
            _table("Scores", section.models, names),
            _differences("Bundle minus baseline", section.models[1:], names),
            _figures(
                [
                    plots.forest(
                        f"Coverage; the line is {section.level:g}",
                        "share of next values inside",
                        [bar for bar in covered if bar is not None],
                        section.level,
                        ("too few", "more than asked"),
                    ),
                    _forest(
                        "Pinball: bundle minus baseline",
                        "difference of pinball loss, scales",
                        section.models,
                        "pinball",
                    ),
                ]
            ),
        ]
    )


def _over_time(found: Measured) -> str:
    names = [period.first for period in found.periods]
    level = found.interval.level if found.interval is not None else 0.9
    kinds = (
        ("ROC-AUC of the flag", "ROC-AUC", [p.auc for p in found.periods], 0.5),
        ("Error of the forecast over that of the last value", "MAE / naive", [p.mae_ratio for p in found.periods], 1.0),
        ("Coverage of the interval", "share inside", [p.coverage for p in found.periods], level),
    )
    drawn = [
        plots.over_time(title, axis, names, values, reference)
        for title, axis, values, reference in kinds
        if any(v is not None for v in values)
    ]
    return (
        "<h2>Does it hold over time?</h2><p>The scored time in stretches of as many steps each, without intervals: "
        f"single stretches scatter.</p>{_figures(drawn)}"
    )


def _glossary() -> str:
    return "".join(
        f'<tr><th>{escape(metric.title)}</th><td class="words">{escape(metric.meaning)}</td>'
        f'<td class="words">{metric.better}</td></tr>'
        for metric in METRICS.values()
    )


def _table(caption: str, models: Sequence[Row], names: Sequence[str]) -> str:
    used = [name for name in names if any(name in row.scores for row in models)]
    body = "".join(
        f"<tr{' class=own' if row.name == 'bundle' else ''}><th>{_words(row.title)}{_small(row.note)}</th>"
        + "".join(_cell(row.scores.get(name), METRICS[name].digits) for name in used)
        + f"<td>{row.rows:,}</td></tr>"
        for row in models
    )
    return _framed(caption, [*(METRICS[name].title for name in used), "rows"], body)


def _differences(caption: str, models: Sequence[Row], names: Sequence[str]) -> str:
    used = [name for name in names if any(name in row.against for row in models)]
    if not used:
        return ""
    body = "".join(
        f"<tr><th>{_words(row.title)}</th>"
        + "".join(_difference(row.against.get(name), name) for name in used)
        + "</tr>"
        for row in models
    )
    return _framed(caption, [METRICS[name].title for name in used], body)


def _tests(models: Sequence[ForecastRow], units: str) -> str:
    if all(row.absolute is None for row in models):
        return ""
    body = "".join(
        f"<tr><th>{_words(row.title)}</th>{_tested(row.absolute)}{_tested(row.squared)}"
        f"<td>{row.absolute.n if row.absolute is not None else 0:,}</td></tr>"
        for row in models
    )
    heads = ["absolute error: statistic", "p", "squared error: statistic", "p", units]
    return _framed("Diebold–Mariano: below zero, the bundle loses less", heads, body)


def _framed(caption: str, heads: Sequence[str], body: str) -> str:
    head = "".join(f"<th>{_words(text)}</th>" for text in heads)
    return (
        f'<div class="scroll"><table><caption>{_words(caption)}</caption><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _tested(test: LossTest | None) -> str:
    if test is None:
        return "<td>–</td><td>–</td>"
    return f"<td>{number(test.statistic, 2)}</td><td>{number(test.p_value, 3)}</td>"


def _cell(found: Number | None, digits: int) -> str:
    if found is None or found.point is None:
        return "<td>–</td>"
    return f"<td>{number(found.point, digits)}{_small(interval(found, digits))}</td>"


def _difference(found: Number | None, name: str) -> str:
    if found is None or found.point is None:
        return "<td>–</td>"
    digits, told = METRICS[name].digits, outcome(name, found)
    text = f"{number(found.point, digits, sign=True)}{_small(interval(found, digits))}"
    return f'<td class="{told}">{text}<small>{told}</small></td>' if told in {"better", "worse"} else f"<td>{text}</td>"


def _forest(title: str, axis: str, models: Sequence[Row], name: str) -> str:
    """Differences of one score; without the majority, whose distance would flatten the others."""
    bars = [
        Bar(bar.label, bar.point, bar.low, bar.high, outcome(name, row.against[name]))
        for row in models[1:]
        if row.name != "majority" and (bar := _bar(row.title, row.against.get(name))) is not None
    ]
    sides = ("bundle worse", "bundle better")
    return (
        plots.forest(title, axis, bars, 0.0, sides if METRICS[name].better == "higher" else sides[::-1]) if bars else ""
    )


def _bar(label: str, found: Number | None) -> Bar | None:
    if found is None or found.point is None:
        return None
    return Bar(label, found.point, found.low, found.high)


def _figures(drawn: Sequence[str]) -> str:
    return '<div class="figures">' + "".join(f"<figure>{svg}</figure>" for svg in drawn if svg) + "</div>"


_MANY = {"day": "days", "step": "steps", "stock": "stocks"}


def _sample(sample: Sample) -> str:
    many = _MANY[sample.unit]
    runs = f", drawn in runs of {sample.block}" if sample.block > 1 else ""
    return (
        f"{sample.rows:,} rows on {sample.units:,} {many}{runs}."
        if sample.unit != "stock"
        else (f"{sample.rows:,} rows of {sample.units:,} {many}, which are what is drawn.")
    )


def _small(text: str) -> str:
    return f"<small>{_words(text)}</small>" if text else ""


def _words(text: str) -> str:
    return escape(text)
