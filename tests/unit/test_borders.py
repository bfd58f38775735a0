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
    "consumer/sandbox.py",  # hands its own environment on to the servers that it starts
    "consumer/commands/demo.py",  # hands its own environment on to the service that it starts
    "model/runtime.py",  # TensorFlow can be silenced by its own variables only
}
IMPORTS_BY_NAME = {
    "consumer/cli.py",  # the chosen command, and no other
    "model/runtime.py",  # TensorFlow, when it is first needed
}


def names_in(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_reads_the_environment(path: Path) -> None:
    reads = names_in(path) & {"environ", "environb", "getenv"}
    assert not reads or str(path.relative_to(ROOT)) in READS_ENVIRONMENT


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_imported_by_name_behind_the_linters_back(path: Path) -> None:
    imports = names_in(path) & {"import_module", "__import__", "exec_module"}
    assert not imports or str(path.relative_to(ROOT)) in IMPORTS_BY_NAME
