from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from consumer.settings import Http, Kafka, Settings, setting_fields, variable_name
from consumer.settings_sources import SettingsError, load_settings

PASSWORD = "hunter2-is-secret"  # noqa: S105 - it is what must not be found


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(*, overrides: dict[str, str] | None = None, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as told:
        load_settings(overrides or {}, environ=environ)
    return told.value.lines


def test_the_defaults_are_those_of_the_design() -> None:
    settings = load_settings(environ={})
    assert (settings.kafka.bootstrap_servers, settings.kafka.group_id) == ("localhost:9092", "downtick")
    assert settings.kafka.input_topic == "prices"
    assert settings.kafka.output_topic == "predictions"
    assert settings.kafka.dead_letter_topic == "prices.dead-letters"
    assert (settings.kafka.start, settings.kafka.static_membership) == ("earliest", False)
    assert (settings.kafka.client, settings.kafka.consumer, settings.kafka.producer) == ({}, {}, {})
    assert settings.redis.url.get_secret_value() == "redis://localhost:6379/0"
    assert (settings.redis.cluster, settings.redis.key_prefix) == (False, "downtick")
    assert settings.model.path.parts[-3:] == ("model", "bundles", "default")
    assert (settings.history.depth, settings.history.max_stocks) == (128, 1_000_000)
    assert (settings.batch.max_events, settings.batch.max_wait) == (4096, 0)
    assert (settings.restore.max_records, settings.dead_letters.max_consecutive) == (5_000_000, 10_000)
    assert (settings.events.max_bytes, settings.events.max_ahead) == (65_536, 86_400)
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8000)
    assert settings.worker.endswith("-8000")


def test_each_place_wins_over_the_ones_after_it(tmp_path: Path) -> None:
    (tmp_path / "downtick.toml").write_text(
        'worker = "toml"\n[kafka]\ngroup_id = "toml"\ninput_topic = "toml"\noutput_topic = "toml-out"\n'
    )
    (tmp_path / ".env").write_text(
        "DOWNTICK_WORKER=dotenv\nDOWNTICK_KAFKA__GROUP_ID=dotenv\nDOWNTICK_KAFKA__INPUT_TOPIC=dotenv\n"
    )
    environ = {"DOWNTICK_WORKER": "environment", "DOWNTICK_KAFKA__GROUP_ID": "environment"}
    settings = load_settings({"worker": "option"}, environ=environ)
    assert settings.worker == "option"
    assert settings.kafka.group_id == "environment"
    assert settings.kafka.input_topic == "dotenv"
    assert settings.kafka.output_topic == "toml-out"
    assert settings.kafka.dead_letter_topic == "prices.dead-letters"


def test_options_can_be_given_as_pairs_which_survive_being_sourced_by_a_shell() -> None:
    settings = load_settings(environ={"DOWNTICK_KAFKA__CLIENT": "debug=msg, sasl.jaas=a=b"})
    assert settings.kafka.client["debug"] == "msg"
    assert settings.kafka.client["sasl.jaas"].get_secret_value() == "a=b"
    (line,) = refused(DOWNTICK_KAFKA__CLIENT=f"{PASSWORD}")
    assert "debug=cgrp" in line
    assert PASSWORD not in line


def test_librdkafka_options_are_merged_option_by_option(tmp_path: Path) -> None:
    (tmp_path / "downtick.toml").write_text('[kafka.client]\n"debug" = "cgrp"\n"socket.keepalive.enable" = true\n')
    settings = load_settings(environ={"DOWNTICK_KAFKA__CLIENT": '{"debug": "msg", "statistics.interval.ms": 5000}'})
    assert settings.kafka.client == {
        "debug": "msg",
        "socket.keepalive.enable": "true",
        "statistics.interval.ms": "5000",
    }


def test_a_settings_object_made_in_code_sees_neither_environment_nor_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("DOWNTICK_WORKER=dotenv\n")
    monkeypatch.setenv("DOWNTICK_KAFKA__GROUP_ID", "environment")
    assert Settings(worker="code").worker == "code"
    assert Settings().kafka.group_id == "downtick"


def test_a_settings_object_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.worker = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.kafka.group_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DOWNTICK_KAFKA__GRUOP_ID", "DOWNTICK_KAFKA__GROUP_ID"),
        ("DOWNTICK_HTTP_PORT", "DOWNTICK_HTTP__PORT"),
        ("downtick_worker", "DOWNTICK_WORKER"),
        ("DOWNTICK_REDIS__URL_FIEL", "DOWNTICK_REDIS__URL"),
    ],
)
def test_a_misspelt_variable_stops_the_start_and_names_the_nearest(name: str, meant: str) -> None:
    assert refused(**{name: "9"}) == [f"{name} in the environment is not a setting; did you mean {meant}?"]


def test_misspelt_names_in_files_and_options_stop_the_start_too(tmp_path: Path) -> None:
    assert refused(overrides={"kafka.gruop_id": "x"}) == [
        "option kafka.gruop_id is not a setting; did you mean kafka.group_id?"
    ]
    (tmp_path / ".env").write_text("OTHER=fine\nDOWNTICK_WROKER=x\n")
    assert refused() == ["DOWNTICK_WROKER in .env is not a setting; did you mean DOWNTICK_WORKER?"]
    (tmp_path / ".env").unlink()
    (tmp_path / "downtick.toml").write_text("[kafka]\ngruop_id = 'x'\n")
    assert refused() == ["kafka.gruop_id is not a setting; did you mean kafka.group_id?"]


def test_variables_that_kubernetes_sets_for_a_service_of_our_name_are_not_ours() -> None:
    environ = {
        "DOWNTICK_SERVICE_HOST": "10.0.0.1",
        "DOWNTICK_SERVICE_PORT": "8000",
        "DOWNTICK_SERVICE_PORT_HTTP": "8000",
        "DOWNTICK_PORT": "tcp://10.0.0.1:8000",
        "DOWNTICK_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "DOWNTICK_PORT_8000_TCP_ADDR": "10.0.0.1",
        "DOWNTICK_METRICS_SERVICE_HOST": "10.0.0.2",
        "DOWNTICK_METRICS_PORT": "tcp://10.0.0.2:9000",
    }
    assert load_settings(environ=environ).http.port == 8000


def test_every_problem_of_the_values_is_told_at_once() -> None:
    lines = refused(DOWNTICK_BATCH__MAX_EVENTS="0", DOWNTICK_HTTP__PORT="http", DOWNTICK_KAFKA__GROUP_ID="a b")
    assert [line.partition(":")[0] for line in lines] == ["kafka.group_id", "batch.max_events", "http.port"]
    assert lines[0] == "kafka.group_id: may hold only letters, digits, . _ and -, not 'a b'"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DOWNTICK_KAFKA__GROUP_ID", ""),
        ("DOWNTICK_KAFKA__GROUP_ID", "a\n"),
        ("DOWNTICK_KAFKA__GROUP_ID", "{a}"),
        ("DOWNTICK_KAFKA__INPUT_TOPIC", "^prices.*"),
        ("DOWNTICK_KAFKA__INPUT_TOPIC", ".."),
        ("DOWNTICK_KAFKA__INPUT_TOPIC", "p" * 250),
        ("DOWNTICK_KAFKA__START", "newest"),
        ("DOWNTICK_KAFKA__STATIC_MEMBERSHIP", "perhaps"),
        ("DOWNTICK_REDIS__KEY_PREFIX", "a:b"),
        ("DOWNTICK_REDIS__URL", "http://localhost"),
        ("DOWNTICK_REDIS__URL", "localhost:6379"),
        ("DOWNTICK_REDIS__URL", "redis://localhost:6379/zero"),
        ("DOWNTICK_REDIS__URL", "redis://localhost:99999/0"),
        ("DOWNTICK_REDIS__URL", "unix://"),
        ("DOWNTICK_REDIS__URL", "redis://:123#4@localhost:6379/0"),
        ("DOWNTICK_REDIS__URL", "redis://:123?4@localhost:6379/0"),
        ("DOWNTICK_REDIS__URL", "redis://:6379/0"),
        ("DOWNTICK_HISTORY__DEPTH", "0"),
        ("DOWNTICK_HISTORY__MAX_STOCKS", "0"),
        ("DOWNTICK_BATCH__MAX_EVENTS", "65537"),
        ("DOWNTICK_BATCH__MAX_WAIT", "-0.1"),
        ("DOWNTICK_BATCH__MAX_WAIT", "nan"),
        ("DOWNTICK_RESTORE__MAX_RECORDS", "0"),
        ("DOWNTICK_DEAD_LETTERS__MAX_CONSECUTIVE", "0"),
        ("DOWNTICK_EVENTS__MAX_BYTES", "1"),
        ("DOWNTICK_EVENTS__MAX_AHEAD", "inf"),
        ("DOWNTICK_HTTP__PORT", "65536"),
        ("DOWNTICK_WORKER", "a/b"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(variable: str, value: str) -> None:
    (line,) = refused(**{variable: value})
    setting = next(name for name in setting_fields() if variable_name(name) == variable)
    assert line.startswith(f"{setting}: ")


def test_the_three_topics_must_differ() -> None:
    (line,) = refused(DOWNTICK_KAFKA__OUTPUT_TOPIC="prices")
    assert line.startswith("kafka: input_topic, output_topic and dead_letter_topic must differ")


def test_workers_of_one_host_have_different_names_unless_they_share_a_port() -> None:
    assert Settings(http=Http(port=8001)).worker.endswith("-8001")
    (line,) = refused(DOWNTICK_HTTP__PORT="0")
    assert "worker must be set when http.port is 0" in line
    assert load_settings(environ={"DOWNTICK_HTTP__PORT": "0", "DOWNTICK_WORKER": "w"}).worker == "w"


def test_a_cluster_has_no_database_number() -> None:
    environ = {"DOWNTICK_REDIS__CLUSTER": "true", "DOWNTICK_REDIS__URL": "redis://localhost:7000/1"}
    assert refused(**environ)[0].startswith("redis: a cluster has a host and port and one database")
    assert load_settings(environ={**environ, "DOWNTICK_REDIS__URL": "rediss://localhost:7000"}).redis.cluster


@pytest.mark.parametrize("variable", [variable_name(name) for name in setting_fields()])
def test_every_setting_can_be_read_from_a_file(variable: str, tmp_path: Path) -> None:
    texts = {
        "STATIC_MEMBERSHIP": "true",
        "CLUSTER": "true",
        "START": "latest",
        "URL": "redis://other:1/2",
        "MAX_WAIT": "3",
    }
    name = variable.rpartition("__")[2]
    text = texts.get(name, '{"debug": "msg"}' if name in {"CLIENT", "CONSUMER", "PRODUCER"} else "321")
    (tmp_path / "value").write_text(text + "\n")
    from_file = load_settings(environ={f"{variable}_FILE": str(tmp_path / "value")})
    assert from_file.model_dump() == load_settings(environ={variable: text}).model_dump()
    assert from_file.model_dump() != load_settings(environ={}).model_dump()


def test_a_value_and_its_file_together_or_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert refused(DOWNTICK_WORKER="a", DOWNTICK_WORKER_FILE=str(missing)) == [
        "DOWNTICK_WORKER and DOWNTICK_WORKER_FILE are both set in the environment: keep one"
    ]
    assert refused(DOWNTICK_WORKER_FILE=str(missing)) == [
        f"DOWNTICK_WORKER_FILE: cannot read the file it names: No such file or directory ({missing})"
    ]


def test_a_named_file_must_exist_and_a_broken_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"other\.env: no such file"):
        load_settings(environ={}, env_file=tmp_path / "other.env")
    with pytest.raises(SettingsError, match=r"other\.toml: no such file"):
        load_settings(environ={}, config_file=tmp_path / "other.toml")
    (tmp_path / "downtick.toml").write_text("[kafka\n")
    (line,) = refused()
    assert line.startswith("downtick.toml: ")
    assert "line 1" in line


def test_a_dollar_in_the_env_file_is_a_dollar(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DOWNTICK_REDIS__URL='redis://:${HOME}x@h:1/0'\n")
    assert load_settings(environ={}).redis.url.get_secret_value() == "redis://:${HOME}x@h:1/0"


SECRET_OPTIONS = [
    "sasl.password",
    "sasl.username",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.certificate.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
]


@pytest.mark.parametrize("option", SECRET_OPTIONS)
def test_a_secret_option_is_in_no_text_that_settings_give(option: str) -> None:
    settings = load_settings(environ={"DOWNTICK_KAFKA__CLIENT": f'{{"{option}": "{PASSWORD}"}}'})
    assert PASSWORD not in repr(settings) + str(settings) + str(settings.model_dump()) + settings.model_dump_json()
    assert PASSWORD in settings.secrets()


@pytest.mark.parametrize(
    "environ",
    [
        {"DOWNTICK_KAFKA__CLIENT": f'{{"sasl.password": "{PASSWORD}", "acks": 1}}'},
        {"DOWNTICK_KAFKA__CLIENT": f'{{"sasl.password": "{PASSWORD}"'},
        {"DOWNTICK_KAFKA__CLIENT": f'["{PASSWORD}"]'},
        {"DOWNTICK_KAFKA__CLIENT": f'{{"sasl.password": ["{PASSWORD}"]}}'},
        {"DOWNTICK_REDIS__URL": f"http://:{PASSWORD}@localhost"},
        {"DOWNTICK_REDIS__URL": f"redis://:{PASSWORD}/@localhost:1/0"},
        {"DOWNTICK_REDIS__URL": f"redis://:{PASSWORD}@localhost:port/0"},
        {"DOWNTICK_REDIS__URL": f"redis://[:{PASSWORD}@localhost/0"},
        {"DOWNTICK_REDIS__URL": f"redis://:{PASSWORD}@localhost/1", "DOWNTICK_REDIS__CLUSTER": "true"},
        {"DOWNTICK_REDIS__URLL": f"redis://:{PASSWORD}@localhost/1"},
    ],
)
def test_a_secret_is_in_no_message_about_a_wrong_setting(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as told:
        load_settings(environ=environ)
    assert PASSWORD not in str(told.value) + repr(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__ or told.value.__context__ is None


def test_the_address_of_redis_can_be_shown_without_its_password() -> None:
    settings = load_settings(
        environ={"DOWNTICK_REDIS__URL": f"rediss://user:{PASSWORD}@cache:6380/3?password={PASSWORD}"}
    )
    assert settings.redis.address == "rediss://cache:6380/3"
    assert PASSWORD not in repr(settings)
    assert PASSWORD in settings.secrets()


def test_what_is_not_secret_is_not_cut_out_of_the_logs() -> None:
    options = '{"sasl.mechanisms": "PLAIN", "ssl.key.location": "/etc/tls/key", "debug": "security"}'
    assert load_settings(environ={"DOWNTICK_KAFKA__CLIENT": options}).secrets() == frozenset()
    url = f"redis://:{PASSWORD}%21@cache:6380/3"
    assert load_settings(environ={"DOWNTICK_REDIS__URL": url}).secrets() == {url, f"{PASSWORD}%21", f"{PASSWORD}!"}


def test_dotted_names_in_toml_need_no_quotes(tmp_path: Path) -> None:
    (tmp_path / "downtick.toml").write_text("[kafka.client]\nsasl.username = 'toml'\nssl.ca.location = '/ca.pem'\n")
    settings = load_settings(environ={"DOWNTICK_KAFKA__CLIENT": '{"sasl.username": "environment"}'})
    assert settings.kafka.client == {"sasl.username": SecretStr("environment"), "ssl.ca.location": "/ca.pem"}
    (tmp_path / "downtick.toml").write_text("[kafka.consumer]\nisolation.level = 'read_uncommitted'\n")
    assert refused()[0].startswith("kafka.consumer: isolation.level cannot be set")


def test_options_given_in_code_are_checked_as_well() -> None:
    with pytest.raises(ValidationError, match=r"isolation\.level cannot be set"):
        Kafka(consumer={"isolation.level": "read_uncommitted"})
