"""Where settings come from: five places in a fixed order, and nothing misspelt gets past them.

The first place that names a setting wins: command-line option, `DOWNTICK_*` environment, `.env`, `downtick.toml`,
default. Objects of librdkafka options are merged option by option."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource

from consumer.settings import PREFIX, Settings, holds_options, setting_fields, variable_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

DEFAULT_ENV_FILE, DEFAULT_CONFIG_FILE = Path(".env"), Path("downtick.toml")

# Kubernetes tells every pod of its services in variables named after them: a Service called `downtick`, or
# `downtick-…`, would otherwise stop the start as a misspelt setting.
_KUBERNETES = re.compile(r"DOWNTICK_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_KUBERNETES_URL = re.compile(r"(tcp|udp|sctp)://")


class SettingsError(Exception):
    """The settings cannot be used. `lines` says what is wrong, one problem a line, and never shows a secret."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def load_settings(
    overrides: Mapping[str, str] = MappingProxyType({}),
    *,
    environ: Mapping[str, str] = os.environ,
    env_file: Path | None = None,
    config_file: Path | None = None,
) -> Settings:
    """The settings of this process.

    Args:
        overrides: dotted name → text, from the command line.
        environ: the environment.
        env_file, config_file: instead of `.env` and `downtick.toml` of the working directory. One that is named
            must exist; the default ones may be missing.
    Raises: SettingsError if a name is unknown or a value is not allowed, listing all problems of a kind at once."""
    dotenv = _read_dotenv(env_file or DEFAULT_ENV_FILE, required=env_file is not None)
    config = config_file or DEFAULT_CONFIG_FILE
    if config_file is not None and not config_file.is_file():
        raise SettingsError([f"{config_file}: no such file"])
    given = _nested({_known(name, setting_fields(), "option"): value for name, value in overrides.items()}, "option")

    class Loaded(Settings):
        # The files are this call's own, and pydantic-settings binds sources to a class.
        @classmethod
        def settings_customise_sources(  # type: ignore[override] # the parameters not needed are taken as keywords
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            **_: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                init_settings,
                _Variables(settings_cls, environ, "the environment"),
                _Variables(settings_cls, dotenv, str(env_file or DEFAULT_ENV_FILE)),
                TomlConfigSettingsSource(settings_cls, config),
            )

    try:
        loaded = Loaded(**given)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # `worker` has no default while the port is wrong: that is not one more problem.
        raise SettingsError([_line(one) for one in found if one["type"] != "default_factory_not_called"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError([f"{config}: {error}"]) from None
    return Settings(**{name: getattr(loaded, name) for name in loaded.model_fields_set})


def _read_dotenv(path: Path, *, required: bool) -> dict[str, str]:
    if not path.exists():
        if required:
            raise SettingsError([f"{path}: no such file"])
        return {}
    try:
        # interpolate=False: a $ in a password is a $.
        read = dotenv_values(path, interpolate=False)
    except (UnicodeDecodeError, OSError) as error:
        raise SettingsError([f"{path}: {error}"]) from None
    return {name: value or "" for name, value in read.items()}


class _Variables(PydanticBaseSettingsSource):
    """`DOWNTICK_*` variables, `__` between group and name; `…_FILE` names a file that holds the value."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str], place: str) -> None:
        super().__init__(settings_cls)
        self._variables, self._place = variables, place

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the library asks for it only from its own __call__

    def __call__(self) -> dict[str, Any]:
        known = {variable_name(setting): setting for setting in setting_fields()}
        values: dict[str, str] = {}
        problems = []
        for name, value in self._variables.items():
            if not name.upper().startswith(PREFIX):
                continue
            plain = name.removesuffix("_FILE")
            if name in known:
                values[known[name]] = value
            elif plain in known and plain in self._variables:
                problems.append(f"{plain} and {name} are both set in {self._place}: keep one")
            elif plain in known:
                try:
                    values[known[plain]] = Path(value).read_text(encoding="utf-8").rstrip("\r\n")
                except (OSError, UnicodeDecodeError) as error:
                    problems.append(f"{name}: cannot read the file it names: {_reason(error)}")
            elif not _is_kubernetes(name, value):
                problems.append(_unknown(f"{name} in {self._place}", name.upper(), list(known)))
        if problems:
            raise SettingsError(problems)
        return _nested(values, self._place)


def _is_kubernetes(name: str, value: str) -> bool:
    by_value = name.endswith("_PORT") and _KUBERNETES_URL.match(value)
    return bool(_KUBERNETES.fullmatch(name) or by_value)


def _nested(values: Mapping[str, str], place: str) -> dict[str, Any]:
    """Dotted names as nested dicts; settings that hold options are read as such."""
    fields = setting_fields()
    tree: dict[str, Any] = {}
    for setting, text in values.items():
        value: object = text
        if holds_options(fields[setting]):
            try:
                value = _options(text)
            except ValueError:  # its text shows the document, which may hold secrets
                form = 'as debug=cgrp,check.crcs=true or, for values with commas, as JSON: {"debug": "cgrp,topic"}'
                raise SettingsError([f"{setting} in {place}: must be librdkafka options, {form}"]) from None
        *groups, name = setting.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return tree


def _options(text: str) -> object:
    """JSON, or name=value pairs, which survive being sourced by a shell. Raises: ValueError."""
    if text.lstrip().startswith("{"):
        options: object = json.loads(text)
        return options
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ValueError("not name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _known(name: str, known: Mapping[str, object], what: str) -> str:
    if name not in known:
        raise SettingsError([_unknown(f"{what} {name}", name, list(known))])
    return name


def _unknown(what: str, name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"{what} is not a setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _line(problem: Any) -> str:
    """One problem pydantic found, with the value that was given unless it may be a secret."""
    setting = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return _unknown(setting, setting, list(setting_fields()))
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "string_pattern_mismatch":
        message = "may hold only letters, digits, . _ and -"
    field = setting_fields().get(setting)
    shown = field is not None and field.annotation is not SecretStr and not holds_options(field)
    given = f", not {problem['input']!r}" if shown and isinstance(problem["input"], str | int | float) else ""
    return f"{setting or 'settings'}: {message[:1].lower()}{message[1:]}{given}"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return f"{error.strerror} ({error.filename})" if isinstance(error, OSError) else "it is not UTF-8 text"
