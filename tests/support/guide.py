"""docs/operations.md as data: the examples in it, which tests load and run."""

import re
from pathlib import Path
from typing import NamedTuple

GUIDE = Path(__file__).parents[2] / "docs" / "operations.md"
SECRETS = "/run/secrets"


class Block(NamedTuple):
    """A fenced block: its language, the file that the line above names, and its text."""

    language: str
    file: str
    text: str


def section(title: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    text = GUIDE.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title!r} in {GUIDE.name}"
    return found[2]


def blocks(text: str) -> list[Block]:
    """Every fenced block, in order."""
    found = re.findall(rf"(?:`{SECRETS}/([\w.-]+)`[^\n]*:\n\n)?```(\w+)\n(.*?)```", text, re.DOTALL)
    return [Block(language, file, body) for file, language, body in found]


class Example(NamedTuple):
    """One way to be let in: downtick.toml and .env, either may be empty."""

    toml: str
    dotenv: str


def examples() -> list[Example]:
    """Those under "TLS and SASL": a downtick.toml, the .env that follows it, or a .env alone."""
    found: list[Example] = []
    last = ""
    for block in blocks(section("TLS and SASL")):
        if block.language == "toml":
            found.append(Example(block.text, ""))
        elif block.language == "dotenv" and last == "toml":
            found[-1] = found[-1]._replace(dotenv=block.text)
        elif block.language == "dotenv":
            found.append(Example("", block.text))
        last = block.language
    return found


def write_secrets(folder: Path, **names: str) -> None:
    """The secret files that the guide shows, `placed`; certificates and keys are the caller's."""
    for block in blocks(section("TLS and SASL")):
        if block.file:
            (folder / block.file).write_text(placed(block.text, folder, **names), encoding="utf-8")


def placed(text: str, folder: Path, **names: str) -> str:
    """The text with its secrets in `folder`, and `names` (kafka, redis) as host:port instead of the guide's."""
    text = text.replace(SECRETS, str(folder))
    for name, there in names.items():
        text = text.replace({"kafka": "broker:9093", "redis": "redis:6380"}[name], there)
    return text
