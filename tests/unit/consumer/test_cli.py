import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from consumer import cli
from consumer.cli_errors import CommandError


def downtick(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "consumer.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **options)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Puts a command of the test's own in the place of `downtick watch`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.logs, "configure", lambda: None)

    def put(run: Callable[[Any], int], *settings: str) -> SimpleNamespace:
        module = SimpleNamespace(DESCRIPTION="a test's own", SETTINGS=settings, add_arguments=lambda _: None, run=run)
        monkeypatch.setitem(sys.modules, "consumer.commands.watch", module)  # type: ignore[arg-type]
        monkeypatch.setattr(cli, "find_spec", lambda _: ModuleType("found"))
        return module

    return put


def test_help_teaches_the_first_steps_and_names_each_command_in_a_line() -> None:
    run = downtick("--help")
    assert run.returncode == 0
    assert "first steps:" in run.stdout
    for name in ("demo", "sandbox"):
        assert f"\n  {name} " in run.stdout
    assert downtick().stdout == run.stdout


def test_help_needs_less_than_half_a_second_and_none_of_the_slow_libraries() -> None:
    code = "import sys, consumer.cli; consumer.cli.main(['--help']); print('LOADED', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(run.stdout.partition("LOADED")[2].split())
    assert not loaded & {"tensorflow", "keras", "numpy", "pydantic", "confluent_kafka", "redis", "rich"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    downtick("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU time: the clock would measure what else this machine does.
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.5


@pytest.mark.parametrize("name", cli._offered())
def test_each_command_explains_itself_without_loading_tensorflow(name: str) -> None:
    code = f"import sys, consumer.cli; consumer.cli.main([{name!r}, '--help'])"
    check = f"import atexit, sys; atexit.register(lambda: sys.stderr.write(str('tensorflow' in sys.modules))); {code}"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"usage: downtick {name}")
    assert run.stderr == "False"


def test_version_is_that_of_the_package() -> None:
    assert downtick("--version").stdout == f"downtick {version('downtick')}\n"


def test_an_unknown_command_or_option_suggests_the_nearest() -> None:
    run = downtick("sandbx")
    assert (run.returncode, run.stderr) == (2, "downtick: no command 'sandbx' here\n  did you mean: downtick sandbox\n")
    run = downtick("sandbox", "--env-fiel", "x")
    assert run.returncode == 2
    assert run.stderr.startswith("downtick sandbox: no option --env-fiel; did you mean --env-file?\n")


def test_a_settings_option_works_with_dashes_and_underscores(command: Callable[..., SimpleNamespace]) -> None:
    seen = []
    command(lambda args: seen.append(args.settings) or 0, "kafka", "redis.url")
    assert cli.main(["watch", "--kafka.group-id", "a", "--kafka.input_topic=b_c", "--redis.url", "redis://h:1/2"]) == 0
    (settings,) = seen
    assert (settings.kafka.group_id, settings.kafka.input_topic) == ("a", "b_c")
    assert settings.redis.address == "redis://h:1/2"


def test_a_command_takes_only_the_settings_it_names(
    command: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    command(lambda _: 0, "kafka")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["watch", "--redis.url", "redis://:hunter2@h:1/2"])
    assert "no option --redis.url" in capsys.readouterr().err


def test_wrong_settings_are_told_in_lines_and_exit_with_2(
    command: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(lambda _: 0, "kafka")
    monkeypatch.setenv("DOWNTICK_KAFKA__GRUOP_ID", "x")
    assert cli.main(["watch"]) == 2
    assert capsys.readouterr().err == (
        "downtick watch: DOWNTICK_KAFKA__GRUOP_ID in the environment is not a setting; "
        "did you mean DOWNTICK_KAFKA__GROUP_ID?\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--redis.ulr", "redis://:hunter2@h"],
        ["--redis.ulr=redis://:hunter2@h"],
        ["--redis.url=http://:hunter2@h"],
        ["--redis.url", "redis://:hunter2@h:port"],
    ],
)
def test_a_password_in_a_wrong_command_line_is_not_repeated(
    command: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    command(lambda _: 0, "redis")
    with pytest.raises(SystemExit) as left:
        raise SystemExit(cli.main(["watch", *arguments]))
    assert left.value.code == 2
    assert "hunter2" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ('{"sasl.pasword": "hunter2"}', 'No such configuration property: "sasl.pasword"'),
        ('{"fetch.min.bytes": "many"}', 'Invalid value for configuration property "fetch.min.bytes"'),
        ('{"security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN", "sasl.oauthbearer.config": "hunter2"}', "sasl"),
    ],
)
def test_an_option_that_librdkafka_does_not_take_is_a_wrong_setting(
    command: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str], options: str, problem: str
) -> None:
    command(lambda _: 0, "kafka")
    assert cli.main(["watch", "--kafka.client", options]) == 2
    told = capsys.readouterr().err
    assert told.startswith("downtick watch: kafka.client, kafka.consumer: ")
    assert problem in told
    assert "hunter2" not in told


def test_an_expected_failure_is_told_with_its_hint_and_without_secrets(
    command: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise CommandError("no answer from redis://:hunter2@h:1", hint="is it running?", code=3)

    monkeypatch.setenv("DOWNTICK_REDIS__URL", "redis://:hunter2@h:1")
    command(fail, "redis")
    assert cli.main(["watch"]) == 3
    cli.logs.conceal(())
    assert capsys.readouterr().err == "downtick watch: no answer from **********\n  is it running?\n"


def test_a_bug_is_logged_with_its_traceback_and_without_secrets(
    command: Callable[..., SimpleNamespace], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> int:
        raise RuntimeError("impossible")

    command(fail)
    assert cli.main(["watch"]) == 1
    (record,) = caplog.records
    assert record.getMessage() == "downtick watch failed"
    assert record.exc_info
    assert str(record.exc_info[1]) == "impossible"


def test_ctrl_c_ends_quietly_with_130(
    command: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    command(interrupted)
    assert cli.main(["watch"]) == 130
    assert "".join(capsys.readouterr()) == ""


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "import sys, types, consumer.cli as cli\n"
        "def run(args):\n    for _ in range(100_000): print('x' * 100)\n    return 0\n"
        "sys.modules['consumer.commands.sandbox'] = types.SimpleNamespace(\n"
        "    DESCRIPTION='', add_arguments=lambda p: None, run=run, __spec__=True)\n"
        "sys.exit(cli.main(['sandbox']))\n"
    )
    pipeline = f'"{sys.executable}" -c "$CODE" | head -1; echo "${{PIPESTATUS[0]}}"'
    run = subprocess.run(
        ["bash", "-c", pipeline], capture_output=True, text=True, timeout=30, check=False, env={"CODE": code}
    )
    assert (run.stdout.splitlines()[1], run.stderr) == ("0", "")
