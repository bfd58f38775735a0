"""The page: whole, self-contained, and safe whatever names it is given."""

import re
from html.parser import HTMLParser

import pytest

from model.measured import (
    Bin,
    Detector,
    Flag,
    Forecast,
    ForecastRow,
    Held,
    Interval,
    Lead,
    LeadCount,
    LossTest,
    Measured,
    Number,
    Period,
    Row,
    Sample,
    Verdict,
)
from model.report import render
from model.verdict import headline, number, sentences

NASTY = "<script>alert(1)</script>"
NUMBER = Number(point=0.1234567, low=0.05, high=0.2)
NOTHING = Number(point=None, low=None, high=None)
SAMPLE = Sample(rows=1000, unit="day", units=50, block=17)


def row(name: str, title: str, scores: dict[str, Number], against: dict[str, Number]) -> Row:
    return Row(name=name, title=title, note="a note & more", rows=1000, scores=scores, against=against)


def measured(name: str = "prices.csv") -> Measured:
    """Made up, with every section; `name` stands wherever a text comes from outside."""
    detector = Detector(threshold=0.5, validation_precision=0.7, precision=None, recall=0.4, found=9)
    flag = Flag(
        sample=SAMPLE,
        base_rate=0.3,
        wanted_precision=0.7,
        models=(
            row("bundle", "this bundle", {"auc": NUMBER, "mcc": NUMBER}, {}),
            row("majority", "always the majority", {"auc": NUMBER, "mcc": NOTHING}, {"auc": NUMBER}),
            row("slope", "trailing slope", {"auc": NUMBER}, {"auc": NUMBER}),
        ),
        reliability=(Bin(probability=0.4, rate=0.5, share=1.0),),
        lead=Lead(
            wanted_precision=0.7,
            before=8,
            stretches=10,
            bundle=detector,
            slope=detector,
            both=8,
            only_bundle=1,
            only_slope=1,
            mean=Number(point=1.5, low=0.5, high=2.5),
            median=Number(point=1.0, low=1.0, high=1.0),
            counts=(LeadCount(steps=1, stretches=8),),
        ),
    )
    tested = LossTest(statistic=-1.5, p_value=0.13, n=50)
    forecast = Forecast(
        sample=SAMPLE,
        largest=99.0,
        models=tuple(
            ForecastRow(
                name=one,
                title=one,
                note="",
                rows=1000,
                scores={"mae": NUMBER, "mae_ratio": NUMBER},
                against={} if one == "bundle" else {"mae": NUMBER},
                absolute=None if one == "bundle" else tested,
                squared=None if one == "bundle" else LossTest(statistic=None, p_value=None, n=0),
            )
            for one in ("bundle", "naive")
        ),
    )
    interval = Interval(
        sample=SAMPLE,
        level=0.9,
        models=(
            row("bundle", "this bundle", {"coverage": NUMBER, "pinball": NUMBER}, {}),
            row("ewma", "EWMA volatility", {"coverage": NUMBER, "pinball": NUMBER}, {"pinball": NUMBER}),
        ),
    )
    return Measured(
        bundle="2026-11-23T120000Z-3fa9c1",
        label="regime",
        held=Held(
            files=(name,),
            sha256="a" * 64,
            same_data=True,
            stocks=3,
            rows=1000,
            first=name,
            last=name,
            validation_from=name,
            test_from=name,
            held_out=True,
            train_rows=2000,
            validation_rows=500,
        ),
        notes=(f"scored from {name} on",),
        replicates=1000,
        seed=1,
        level=0.95,
        flag=flag,
        forecast=forecast,
        interval=interval,
        periods=tuple(
            Period(first=name, last=name, rows=500, auc=auc, mae_ratio=0.99, coverage=0.9) for auc in (0.6, None)
        ),
        verdicts=(
            Verdict(
                part="flag", baseline="slope", title="trailing slope", metric="auc", difference=NUMBER, outcome="better"
            ),
            Verdict(part="forecast", baseline="naive", title="naive", metric="mae", difference=NUMBER, outcome="worse"),
        ),
    )


class Page(HTMLParser):
    """Tags in order, and whether each one that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_tag_is_closed_and_every_section_is_there() -> None:
    text = render(measured())
    page = Page(text)
    assert page.open == []
    for heading in (
        "What was scored",
        "Is it falling?",
        "What comes next?",
        "How far may it move?",
        "How to read this",
    ):
        assert heading in text
    assert page.tags.count("svg") >= 7


def test_nothing_is_loaded_from_anywhere_and_nothing_runs() -> None:
    text = render(measured())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "a", "base", "form"} & set(page.tags)
    assert not [key for key, _ in page.attributes if key.startswith("on") or key in {"href", "src", "xlink:href"}]
    assert not re.search(r"https?:|url\(|@import|javascript:|//[a-z]", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("name", [NASTY, '"><svg onload=alert(1)>', "$version ${body}", "a & b"])
def test_names_from_outside_are_only_ever_text(name: str) -> None:
    plain, nasty = Page(render(measured())), Page(render(measured(name)))
    assert plain.tags == nasty.tags
    assert [key for key, _ in plain.attributes] == [key for key, _ in nasty.attributes]
    assert "<script" not in render(measured(name))


def test_plots_follow_the_page_into_the_dark() -> None:
    text = render(measured())
    assert "prefers-color-scheme: dark" in text
    drawings = "".join(re.findall(r"<svg.*?</svg>", text))
    assert not re.search(r"#[0-9a-f]{3}|fill=|stroke=|style=", drawings)


def test_what_cannot_be_told_is_a_dash_and_numbers_have_a_real_minus() -> None:
    assert number(None, 3) == "–"
    assert number(-0.12345, 3) == "−0.123"
    assert number(0.12345, 3, sign=True) == "+0.123"
    assert number(-0.00001, 3, sign=True) == "0.000"
    assert "<td>–</td>" in render(measured())
    assert "None" not in render(measured())
    assert "nan" not in render(measured()).lower()


def test_the_tests_of_a_forecast_name_the_unit_that_they_are_of() -> None:
    found = measured()
    assert found.forecast is not None
    assert "<th>days</th>" in render(found)
    steps = found.forecast.model_copy(update={"sample": SAMPLE.model_copy(update={"unit": "step"})})
    text = render(found.model_copy(update={"forecast": steps}))
    assert "<th>steps</th>" in text
    assert "<th>days</th>" not in text


def test_a_page_without_sections_is_a_page() -> None:
    bare = measured().model_copy(
        update={"flag": None, "forecast": None, "interval": None, "periods": (), "verdicts": ()}
    )
    assert Page(render(bare)).open == []
    assert headline(bare) == "nothing can be compared on these rows"
    assert sentences(bare) == []


def test_the_first_line_says_whether_every_baseline_is_beaten() -> None:
    found = measured()
    assert headline(found).startswith(
        "better than every baseline: no; the flag beats 1 of 1, the forecast beats 0 of 1"
    )
    better = found.model_copy(update={"verdicts": found.verdicts[:1]})
    assert headline(better).startswith("better than every baseline: yes; the flag beats 1 of 1")
    seen = found.model_copy(update={"held": found.held.model_copy(update={"held_out": False, "test_from": None})})
    assert headline(seen).startswith("measured on what it was trained on, which says nothing about new data")


def test_the_sentences_name_what_is_better_and_what_is_not() -> None:
    flag, forecast, interval = sentences(measured())
    assert flag == (
        "flag: ROC-AUC 0.123 [0.050, 0.200]; by ROC-AUC better than trailing slope (+0.123); "
        "+1.50 steps earlier than the trailing slope at equal precision [0.50, 2.50]"
    )
    assert forecast == "forecast: MAE / naive 0.1235 [0.0500, 0.2000]; by MAE worse than naive (+0.1235)"
    assert interval == "interval: coverage 0.1235 [0.0500, 0.2000] where it should be 0.9"
