"""docs/operations.md: its examples load, its figures are measured ones, and what it names exists."""

import ast
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from redis.connection import SSLConnection

from consumer.admin import options_problems
from consumer.kafka_options import consumer_options, producer_options
from consumer.settings import Settings
from consumer.settings_sources import load_settings
from state.connection import connection_options
from tests.support import guide
from tests.support.certificates import Authority

ROOT = Path(__file__).parents[3]
TEXT = guide.GUIDE.read_text(encoding="utf-8")
EXAMPLES = dict(zip(("scram", "plain", "mtls", "oauth"), guide.examples(), strict=True))
MECHANISM = {"scram": "SCRAM-SHA-512", "plain": "PLAIN", "mtls": None, "oauth": "OAUTHBEARER"}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Where the examples' secrets are: passwords as the guide has them, certificates and keys that are real."""
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.sign("downtick")
    guide.write_secrets(tmp_path)
    for name in set(re.findall(rf"{guide.SECRETS}/([\w-]+\.pem)", TEXT)):
        source = (
            authority.certificate if name.endswith("-ca.pem") else key if name.endswith("-key.pem") else certificate
        )
        (tmp_path / name).write_bytes(source.read_bytes())
    return tmp_path


def loaded(example: guide.Example, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(secrets)
    Path("downtick.toml").write_text(guide.placed(example.toml, secrets), encoding="utf-8")
    Path(".env").write_text(guide.placed(example.dotenv, secrets), encoding="utf-8")
    return load_settings(environ={})


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_loads_and_librdkafka_takes_its_options(
    name: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = loaded(EXAMPLES[name], secrets, monkeypatch)
    assert settings.kafka.bootstrap_servers == "broker:9093"
    for options in (consumer_options(settings), producer_options(settings)):
        assert str(options["security.protocol"]).endswith("SSL")
        assert options.get("sasl.mechanism") == MECHANISM[name]
        assert options["ssl.ca.location"] == f"{secrets}/kafka-ca.pem"
    assert options_problems(settings) == []


def test_the_password_of_the_file_reaches_librdkafka_and_no_text(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = loaded(EXAMPLES["scram"], secrets, monkeypatch)
    assert consumer_options(settings)["sasl.password"] == "a-password, with a comma"
    assert "a-password" not in repr(settings)
    assert {"a-password, with a comma"} <= settings.secrets()


@pytest.mark.parametrize("name", ["scram", "mtls"])
def test_redis_is_spoken_to_over_tls_with_the_files_named(
    name: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = loaded(EXAMPLES[name], secrets, monkeypatch).redis.url.get_secret_value()
    options = connection_options(url, 2.0)
    assert options["connection_class"] is SSLConnection
    files = {option: value for option, value in options.items() if option.startswith("ssl_")}
    assert files == {option: values[0] for option, values in parse_qs(urlsplit(url).query).items()}
    assert files["ssl_ca_certs"] == f"{secrets}/redis-ca.pem"
    assert all(Path(file).is_file() for file in files.values())
    if name == "scram":
        assert options["password"] == json.loads((secrets / "kafka-client.json").read_text())["sasl.password"]


# --- figures


def test_sizing_shows_what_the_benchmark_measured() -> None:
    """After a new run of it, write the rows as they are expected here."""
    found = json.loads((ROOT / "bench" / "results" / "throughput.json").read_text(encoding="utf-8"))["summary"]

    def median(part: str, name: str) -> float:
        return float(found[part][name]["median"])

    cpu, small = median("service", "cpu_us_per_update"), median("latency apache service", "cpu_us_per_update")
    rate = median("service", "updates_per_second")
    load, start = median("memory", "load_seconds"), median("memory", "start_seconds")
    full, redis = median("memory", "peak_memory_bytes") / 1e9, median("memory", "redis_bytes") / 1e9
    busy = median("service", "peak_memory_bytes") / 1e9
    rows = [
        f"| full batches | {cpu:.1f} µs of CPU per update | {rate:,.0f} updates/s, broker and Redis beside it |",
        f"| 1,000 updates/s, Apache Kafka | {small:.0f} µs of CPU per update | {small / 1000:.1f} of a core |",
        f"| reading 100,000 full rings at a start | {load:.1f} s | {start:.1f} s from the process to ready |",
        f"| 100,000 stocks with full rings, one worker | {full:.2f} GB at the peak | Redis: {redis:.2f} GB |",
        f"| 5,000 stocks and a backlog, one worker | {busy:.2f} GB at the peak | |",
    ]
    assert [row for row in rows if row not in guide.section("Sizing").splitlines()] == []


# --- what it names


def _said() -> set[str]:
    """Every text in our code, with … for what is put in, `%s` and braces alike."""

    def shown(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(shown(part) for part in node.values)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"

    texts = set()
    for file in (*(ROOT / "consumer").rglob("*.py"), *(ROOT / "state").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                texts.add(re.sub(r"%\.?\d*[sdfr]", "…", shown(node)).replace("`", ""))
    return texts


LINES = [
    line
    for cell in re.findall(r"^\| (`.+?) \| (?:info|warning|error) \|", guide.section("Log lines"), re.MULTILINE)
    for line in re.findall(r"`([^`]+)`", cell)
]


@pytest.mark.parametrize("line", LINES)
def test_each_log_line_is_one_that_the_code_writes(line: str) -> None:
    if line.endswith("…"):
        assert any(text.startswith(line[:-1].rstrip()) for text in _said())
    else:
        assert line in _said()


def test_there_are_log_lines() -> None:
    assert len(LINES) >= 15


def test_every_test_that_is_named_exists() -> None:
    tests = {file: file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")}
    files = {str(file.relative_to(ROOT)) for file in tests}
    named = set(re.findall(r"`(tests/[\w/*.]+\.py)`", TEXT))
    assert len(named) > 10
    assert {name for name in named if not list(ROOT.glob(name))} == set()
    functions = {name for text in tests.values() for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    bare = set(re.findall(r"`(test_\w+)(?:\.py)?`", TEXT))
    assert len(bare) > 5
    assert {
        name for name in bare if name not in functions and not any(f.endswith(f"/{name}.py") for f in files)
    } == set()


def test_every_metric_that_is_named_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(downtick_\w+)`", TEXT))
    assert len(named) > 4
    assert {name for name in named if f"| `{name}` |" not in reference} == set()


def test_every_heading_that_is_linked_exists() -> None:
    def anchors(text: str) -> set[str]:
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}

    for page, anchor in re.findall(r"\]\(([\w/.-]*\.md)?#([\w-]+)\)", TEXT):
        target = guide.GUIDE.parent / page if page else guide.GUIDE
        assert anchor in anchors(target.read_text(encoding="utf-8")), (page, anchor)


def test_every_page_that_is_linked_exists() -> None:
    pages = set(re.findall(r"\]\(([\w/.-]+\.md)", TEXT))
    assert len(pages) > 5
    assert {page for page in pages if not (guide.GUIDE.parent / page).is_file()} == set()


def test_the_redis_user_of_the_guide_has_the_rights_that_are_proven_to_be_enough() -> None:
    store = (guide.GUIDE.parent / "decisions" / "store.md").read_text(encoding="utf-8")
    paragraph = store.partition("**Rights")[2].partition("\n\n")[0]
    proven = re.findall(r"[A-Z]+(?:\|[A-Z]+)?", " ".join(re.findall(r"`([A-Z|\s]+)`", paragraph)))
    (line,) = re.findall(r"^ACL SETUSER .*$", TEXT, re.MULTILINE)
    assert re.findall(r" \+(\S+)", line) == [command.lower() for command in proven]
