"""A command of `downtick` as its user sees it: exit code, stdout, stderr. It runs in this process, so that no second
goes by with imports; what needs a process of its own (signals, pipes, terminals) starts one itself."""

import contextlib
import io
import logging
import os
from dataclasses import dataclass
from unittest import mock

from consumer.cli import main


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


def downtick(*arguments: str, text: str = "", columns: int = 140) -> Done:
    """Run it with nothing of this machine's settings; `text` is its standard input, which is no terminal."""
    out, err = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DOWNTICK_")}
    try:
        with (
            mock.patch.dict(os.environ, {**environ, "COLUMNS": str(columns)}, clear=True),
            mock.patch("sys.stdin", io.StringIO(text)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = main(list(arguments))
            except SystemExit as exit_:  # argparse
                code = int(exit_.code or 0)
    finally:
        root.handlers[:] = handlers  # the command's log lines went to `err`
        root.setLevel(level)
    return Done(code, out.getvalue(), err.getvalue())
