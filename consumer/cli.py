"""The command line: finds the command, reads its settings, runs it, and turns what goes wrong into an exit code.

Only the chosen command's module is imported, so that help and light commands start at once. A module in
`consumer/commands` offers `DESCRIPTION`, `add_arguments(parser)`, `run(args) -> int` and, when it reads settings,
`SETTINGS`: groups (`kafka`) or single ones (`redis.url`); `run` then finds the loaded ones in `args.settings`."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import shutil
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, cast, get_args, get_origin

from consumer import logs
from consumer.cli_errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS = {
    "demo": "everything at once, on real prices: broker, Redis, service and a live table",
    "sandbox": "a Kafka broker and a Redis for trying things out, until you stop it",
    "run": "the service: updates in, predictions out, exactly once",
    "replay": "send a CSV of values to the input topic",
    "watch": "follow the predictions as a table",
    "history": "one stock's values and forecasts, straight from Redis",
    "state": "show or reset what Redis keeps",
    "dead-letters": "let a partition go on that was paused for too many refused updates",
    "train": "make a model bundle from a CSV",
    "predict": "predictions for a CSV, without Kafka and Redis",
    "evaluate": "measure a bundle on a CSV",
    "models": "the versions of a model: list them, activate one, roll back, try one in shadow",
    "health": "is a worker alive or ready: exit code for a container probe",
}

_INTRODUCTION = """\
downtick reads value updates of stocks from a Kafka topic, keeps each stock's recent history in Redis, and
publishes for every update whether the stock is falling and what its next value will be: exactly once.

first steps:
  downtick demo                          see it work; needs nothing running
  downtick sandbox --env-file .env       a broker and a Redis of your own, in one terminal
  downtick run                           the service, in a second one; it reads .env
  downtick replay prices.csv             updates, in a third one
  downtick watch                         and its predictions
"""

_SETTINGS_NOTE = """\
Each setting can also be given as a variable (--kafka.group-id is DOWNTICK_KAFKA__GROUP_ID), in a .env file or in
downtick.toml; the command line wins, then the environment, .env, downtick.toml. NAME_FILE names a file that holds
the value of NAME: keep passwords there, a command line is for everybody to see."""


class Command(Protocol):
    """What a module in `consumer/commands` offers."""

    DESCRIPTION: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its own arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it, and give the exit code."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns: its exit code; 1 for a failure it expected, 2 for a wrong command line or setting, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in {"-h", "--help", "help"}:
        print(_help())
        return 0
    if name in {"-V", "--version"}:
        print(f"downtick {version('downtick')}")
        return 0
    if name not in _offered():
        return _unknown_command(name)
    parser, command, wanted = _prepare(name)
    args = parser.parse(arguments[1:])
    logs.configure()
    if wanted and (problems := _load_settings(args)):
        return _fail(f"downtick {name}", problems, 2)
    return _run(name, command, args)


def _prepare(name: str) -> tuple[_Parser, Command, tuple[str, ...]]:
    """The command, a parser of its arguments, and the settings it reads."""
    command = cast("Command", import_module(_module(name)))
    parser = _Parser(
        prog=f"downtick {name}",
        description=command.DESCRIPTION,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    wanted: tuple[str, ...] = getattr(command, "SETTINGS", ())
    if wanted:
        # Thirty settings would bury the command's own arguments.
        usage = parser.format_usage().removeprefix("usage: ").rstrip().replace("%", "%%")
        parser.usage = f"{usage} [--SETTING VALUE ...]"
        _add_settings(parser, wanted)
    return parser, command, wanted


def _run(name: str, command: Command, args: argparse.Namespace) -> int:
    try:
        return command.run(args)
    except CommandError as error:
        return _fail(f"downtick {name}", [str(error), *([error.hint] if error.hint else [])], error.code)
    except BrokenPipeError:
        raise
    except Exception:  # a bug: through the log, which keeps secrets out of the traceback
        logging.getLogger(__name__).exception("downtick %s failed", name)
        return 1


def _module(name: str) -> str:
    return f"consumer.commands.{name.replace('-', '_')}"


def _offered() -> dict[str, str]:
    return {name: line for name, line in _COMMANDS.items() if find_spec(_module(name))}


def _help() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in _offered().items()]
    return "\n".join(
        [
            "usage: downtick COMMAND [options]",
            "",
            _INTRODUCTION,
            "commands:",
            *lines,
            "",
            "downtick COMMAND --help tells more about one of them; downtick --version names this version.",
        ]
    )


def _unknown_command(name: str) -> int:
    known = list(_offered())
    nearest = difflib.get_close_matches(name, known, n=1)
    what = f"no option {name}" if name.startswith("-") else f"no command {name!r}"
    guess = f"did you mean: downtick {nearest[0]}" if nearest else f"commands: {', '.join(known)}"
    return _fail("downtick", [f"{what} here", guess], 2)


def _fail(who: str, lines: list[str], code: int) -> int:
    first, *others = lines
    text = "\n".join([f"{who}: {first}", *(f"  {line}" for line in others)])
    print(logs.without_secrets(text), file=sys.stderr)
    return code


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written, and room for the long names of settings."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=min(120, shutil.get_terminal_size().columns - 2))


class _Parser(argparse.ArgumentParser):
    """argparse, less talkative: what it does not know is named without values, which may be secret."""

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        args, unknown = self.parse_known_args([_dashed(argument) for argument in arguments])
        if unknown:
            options = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
            known = [option for action in self._actions for option in action.option_strings]
            for option in options:
                nearest = difflib.get_close_matches(option, known, n=1)
                self.error(f"no option {option}" + (f"; did you mean {nearest[0]}?" if nearest else ""))
            self.error(f"one argument too many: {unknown[0]}")
        return args

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n  {self.prog} --help shows what there is\n")


def _dashed(argument: str) -> str:
    """`--kafka.group_id=x_y` as `--kafka.group-id=x_y`: a setting's name works with either."""
    option, equals, value = argument.partition("=")
    known = argument.startswith("--") and "." in option and " " not in option
    return (option.replace("_", "-") if known else option) + equals + value


def _add_settings(parser: argparse.ArgumentParser, wanted: tuple[str, ...]) -> None:
    from consumer.settings import setting_fields  # noqa: PLC0415 - pydantic is slow; commands without settings skip it

    group = parser.add_argument_group("settings", _SETTINGS_NOTE)
    for name, field in setting_fields().items():
        if not any(name == one or name.startswith(f"{one}.") for one in wanted):
            continue
        default = field.get_default() if field.default_factory is None else None
        text = (field.description or "") + (f" (default: {_shown(default)})" if default is not None else "")
        kind = field.annotation
        choices = ("true", "false") if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"setting {name}",
            metavar="|".join(choices) or "VALUE",
            help=text.replace("%", "%%"),
            default=argparse.SUPPRESS,
        )
    group.add_argument(
        "--env-file", metavar="F", type=Path, help="file of DOWNTICK_* variables to read instead of .env"
    )
    group.add_argument("--config-file", metavar="F", type=Path, help="file to read instead of downtick.toml")


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    secret = getattr(default, "get_secret_value", None)  # a default is no secret: it stands in the documentation
    return str(secret() if secret else default)


def _load_settings(args: argparse.Namespace) -> list[str]:
    """Put the settings into `args.settings`; the lines that say what is wrong, if they cannot be used."""
    from consumer.settings_sources import SettingsError, load_settings  # noqa: PLC0415 - pydantic, as above

    prefix = "setting "
    given = {name.removeprefix(prefix): value for name, value in vars(args).items() if name.startswith(prefix)}
    try:
        args.settings = load_settings(given, env_file=args.env_file, config_file=args.config_file)
    except SettingsError as error:
        return error.lines
    logs.conceal(args.settings.secrets())
    kafka = args.settings.kafka
    if kafka.client or kafka.consumer or kafka.producer:
        from consumer.admin import options_problems  # noqa: PLC0415 - without options there is nothing to load it for

        return options_problems(args.settings)
    return []


if __name__ == "__main__":
    sys.exit(main())
