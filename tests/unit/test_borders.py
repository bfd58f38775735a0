"""The borders that import-linter (`make check`) cannot see: the environment, and imports by name."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for package in ("consumer", "model", "state") for path in (ROOT / package).rglob("*.py"))

# Whoever reads the environment, beside the command line and what it calls to read settings: with the reason.
READS_ENVIRONMENT = {
    "consumer/cli.py",
    "consumer/settings_sources.py",
    "consumer/commands/demo.py",  # what the terminal can show
    "consumer/commands/health.py",  # a probe of every few seconds: reading all settings would be most of its work
    "consumer/demo.py",  # hands its own environment on to the service that it starts
    "model/runtime.py",  # TensorFlow can be silenced by its own variables only
}
TALKS_TO_BROKERS = {
    *("consumer/source.py", "consumer/sink.py", "consumer/service.py"),  # the service
    *("consumer/admin.py", "consumer/topics.py", "consumer/tail.py", "consumer/traffic.py"),  # the tools
    *("consumer/commands/replay.py", "consumer/commands/watch.py"),
    "consumer/sandbox.py",  # asks whether its broker is up
}
IMPORTS_BY_NAME = {
    "consumer/cli.py",  # the chosen command, and no other
    "model/extras.py",  # packages that serving does without
    "model/runtime.py",  # TensorFlow, when it is first needed
}


def names_in(path: Path) -> set[str]:
    """Dotted names, as `os.environ`, and bare ones."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_reads_the_environment(path: Path) -> None:
    reads = names_in(path) & {"os.environ", "os.environb", "os.getenv"}
    assert not reads or str(path.relative_to(ROOT)) in READS_ENVIRONMENT


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_imported_by_name_behind_the_linters_back(path: Path) -> None:
    imports = names_in(path) & {"import_module", "importlib.import_module", "__import__"}
    assert not imports or str(path.relative_to(ROOT)) in IMPORTS_BY_NAME


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_files_that_talk_to_brokers_know_their_client(path: Path) -> None:
    knows = "confluent_kafka" in {
        module.partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert knows == (str(path.relative_to(ROOT)) in TALKS_TO_BROKERS)
