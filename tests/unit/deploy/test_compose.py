"""docker-compose.yml: what it promises, one claim a check; and each check finds what it is for in a spoilt copy."""

import copy
import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from consumer.settings import PREFIX
from consumer.settings_sources import SettingsError, load_settings
from consumer.stop import SHUTDOWN_SECONDS
from tests.conftest import REDIS_CONF
from tests.support.kafka import DEPLOYED, LOG4J

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docker-compose.yml"
MONITORING = {"prometheus", "grafana"}
CORE = {"kafka", "topics", "redis", "downtick", "producer"}
ONE_SHOT = "topics"  # its end is what others wait for, so it has no health check and is not started again

Compose = dict[str, Any]


def parsed() -> Compose:
    compose: Compose = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return compose


def started(compose: Compose, *options: str, variable: str = "") -> set[str]:
    """The services of `docker compose --profile … up`, without a profile those that COMPOSE_PROFILES names.

    As compose-go has it (WithDefaultProfiles and HasProfile, 1.20 to 2.16): without an option the variable is split at
    commas, which makes an empty or missing one the profile "". Compared with `docker compose config --services` of
    Docker Compose 5.4.0 for each line of test_what_starts."""
    active = set(options) or {name.strip() for name in variable.split(",")}
    profiles = {name: set(service.get("profiles", [])) for name, service in compose["services"].items()}
    return {name for name, own in profiles.items() if not own or own & active or "*" in active}


@pytest.mark.parametrize(
    ("options", "variable", "expected"),
    [
        ((), "", CORE | MONITORING),
        (("core",), "", CORE),
        (("monitoring",), "", CORE | MONITORING),
        (("*",), "", CORE | MONITORING),
        ((), "core", CORE),
        (("core",), "monitoring", CORE),  # the option wins
    ],
)
def test_what_starts(options: Sequence[str], variable: str, expected: set[str]) -> None:
    assert started(parsed(), *options, variable=variable) == expected


def schema(compose: Compose) -> list[str]:
    validator = jsonschema.Draft202012Validator(get_builtin_schema("vendor.compose-spec"))
    return [error.message for error in validator.iter_errors(compose)]


def tags_are_exact(compose: Compose) -> list[str]:
    found = []
    for name, service in compose["services"].items():
        tag = service["image"].partition(":")[2]
        if not re.fullmatch(r"v?\d+\.\d+\.\d+(-[a-z]+)?", tag):
            found.append(f"{name}: {service['image']} is not one version")
    return found


def what_is_tested_is_what_runs(compose: Compose) -> list[str]:
    """The versions of our own image and of Kafka are those of this tree, and of the tests."""
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tested = re.search(
        r"<artifactId>kafka_2\.13</artifactId>\s*<version>(.+)</version>", (ROOT / "tests/pom.xml").read_text()
    )
    assert tested is not None
    expected = {"downtick": f"downtick:{ours}", "producer": f"downtick-producer:{ours}"}
    expected |= dict.fromkeys(("kafka", "topics"), f"apache/kafka:{tested[1]}")
    return [
        f"{name}: {compose['services'][name]['image']} is not {image}"
        for name, image in expected.items()
        if compose["services"][name]["image"] != image
    ]


def no_image_is_built_under_a_name_twice(compose: Compose) -> list[str]:
    """Compose builds side by side: the first `up` on a fresh machine would fail when the second build ends."""
    built = [service["image"] for service in compose["services"].values() if "build" in service]
    return [f"{image} is built twice" for image in sorted(set(built)) if built.count(image) > 1]


def what_is_unpacked_can_be_loaded(compose: Compose) -> list[str]:
    """Kafka's native libraries: a tmpfs is mounted noexec unless it says otherwise."""
    return [
        f"{name}: nothing in /tmp can be loaded"
        for name in ("kafka", "topics")
        if not any(
            mount.startswith("/tmp:") and "exec" in mount.split(",")  # noqa: S108  # inside of a container
            for mount in compose["services"][name]["tmpfs"]
        )
    ]


def ports_are_bound_to_loopback(compose: Compose) -> list[str]:
    ports = [(name, port) for name, service in compose["services"].items() for port in service.get("ports", [])]
    return [f"{name}: {port}" for name, port in ports if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", str(port))]


def all_but_the_one_shot_have_a_health_check(compose: Compose) -> list[str]:
    found = []
    for name, service in compose["services"].items():
        check = service.get("healthcheck", {})
        if name != ONE_SHOT and (not check.get("test") or check["test"] == ["NONE"] or check.get("disable")):
            found.append(f"{name} has no health check")
        if check and {"interval", "timeout", "retries", "start_period"} - check.keys():
            found.append(f"{name}: its health check leaves times to defaults")
    return found


def dependencies_are_waited_for_as_they_can_be(compose: Compose) -> list[str]:
    """On a service's health where it has one, on the one-shot's end; Prometheus alone does not wait for health."""
    found = []
    for name, service in compose["services"].items():
        depends = service.get("depends_on", {})
        for other, how in depends.items() if isinstance(depends, Mapping) else ((one, {}) for one in depends):
            if other not in compose["services"]:
                found.append(f"{name} depends on {other}, which does not exist")
                continue
            expected = "service_completed_successfully" if other == ONE_SHOT else "service_healthy"
            if (name, other) == ("prometheus", "downtick"):
                expected = "service_started"
            if how.get("condition") != expected:
                found.append(f"{name} waits for {other} as {how.get('condition')}, not as {expected}")
            found += [
                f"with profile {profile!r} {name} starts without {other}"
                for profile in ("", "core", "monitoring")
                if name in started(compose, profile) and other not in started(compose, profile)
            ]
    return found


def everybody_waits_for_what_it_needs(compose: Compose) -> list[str]:
    needs = {
        "topics": {"kafka"},
        "downtick": {"kafka", "topics", "redis"},
        "producer": {"topics"},
        "prometheus": {"downtick"},
        "grafana": {"prometheus"},
    }
    return [
        f"{name} does not wait for {other}"
        for name, others in needs.items()
        for other in sorted(others - set(compose["services"][name].get("depends_on", {})))
    ]


def containers_are_hardened(compose: Compose) -> list[str]:
    """No exception is needed: no image of these starts as root once Redis is told its user."""
    wanted = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "init": True}
    refused = {"privileged", "cap_add", "network_mode", "pid", "ipc", "userns_mode", "devices"}
    found = []
    for name, service in compose["services"].items():
        found += [f"{name}: {key} is {service.get(key)}" for key, value in wanted.items() if service.get(key) != value]
        found += [f"{name}: {key}" for key in sorted(refused & service.keys())]
        if not any(mount.startswith("/tmp:size=") for mount in service.get("tmpfs", [])):  # noqa: S108 - the container's
            found.append(f"{name} has no /tmp of limited size")
        if service.get("user", "").startswith(("0", "root")):
            found.append(f"{name} runs as root")
    return found


def nothing_grows_without_bound(compose: Compose) -> list[str]:
    found = []
    for name, service in compose["services"].items():
        if not service.get("deploy", {}).get("resources", {}).get("limits", {}).get("memory"):
            found.append(f"{name} may take all memory")
        logging = service.get("logging", {})
        if logging.get("driver") != "json-file" or not {"max-size", "max-file"} <= logging.get("options", {}).keys():
            found.append(f"{name}: its log is not rotated")
    return found


def _mounts(service: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(*mount.split(":"), "")[:3] for mount in service.get("volumes", [])]


def files_are_there_and_read_only(compose: Compose) -> list[str]:
    found = []
    for name, service in compose["services"].items():
        for source, target, mode in _mounts(service):
            if not source.startswith("."):
                if source not in compose["volumes"]:
                    found.append(f"{name}: {source} is not a volume")
                continue
            if not (ROOT / source).exists():
                found.append(f"{name}: {source} does not exist")
            if mode != "ro":
                found.append(f"{name} could write to {target}")
        build = service.get("build")
        if build and not (ROOT / build["context"] / build["dockerfile"]).is_file():
            found.append(f"{name}: there is no {build['dockerfile']}")
    return found


def _files(service: Mapping[str, Any]) -> dict[str, Path]:
    """The files of this tree that a service sees, by their path in the container."""
    seen = {}
    for source, target, _ in _mounts(service):
        if source.startswith("."):
            path = ROOT / source
            inside = [path, *path.rglob("*")] if path.is_dir() else [path]
            seen |= {str(Path(target) / one.relative_to(path)): one for one in inside}
    return seen


def servers_read_the_files_that_the_tests_use(compose: Compose) -> list[str]:
    """tests/support/kafka.py and the fixture `own_redis` start theirs from these; promtool reads the monitoring's."""
    readers = {
        "kafka": {"/etc/downtick/server.properties": DEPLOYED, "/etc/downtick/log4j2.properties": LOG4J},
        "topics": {"/etc/downtick/log4j2.properties": LOG4J},
        "redis": {"/etc/downtick/redis.conf": REDIS_CONF},
        "prometheus": {"/etc/prometheus/prometheus.yml": ROOT / "deploy/prometheus/prometheus.yml"},
        "grafana": {"/etc/grafana/provisioning": ROOT / "deploy/grafana/provisioning"},
    }
    found = []
    for name, files in readers.items():
        service = compose["services"][name]
        told = " ".join(str(service.get(key, "")) for key in ("command", "environment"))
        for inside, expected in files.items():
            if _files(service).get(inside) != expected:
                found.append(f"{name}: {inside} is {_files(service).get(inside)}, not {expected}")
            if name != "grafana" and inside not in told:  # Grafana looks there unasked
                found.append(f"{name} is not told to read {inside}")
    return found


def settings_are_known(compose: Compose) -> list[str]:
    """What the program itself says to the environment of its containers."""
    found = []
    for name in ("downtick", "producer"):
        environ = {key: str(value) for key, value in compose["services"][name]["environment"].items()}
        found += [f"{name}: {key} is no setting" for key in environ if not key.startswith(PREFIX)]
        try:
            settings = load_settings(environ=environ)
        except SettingsError as error:
            found += [f"{name}: {line}" for line in error.lines]
            continue
        if settings.kafka.bootstrap_servers not in _advertised():
            found.append(f"{name}: Kafka is not at {settings.kafka.bootstrap_servers}")
        if name == "downtick" and settings.redis.address != "redis://redis:6379/0":
            found.append(f"{name}: Redis is not at {settings.redis.address}")
        if name == "downtick" and (settings.http.host, settings.http.port) != ("0.0.0.0", 8000):  # noqa: S104 - as said
            found.append(f"{name} is not reached at {settings.http.host}:{settings.http.port}")
        if name == "downtick" and "DOWNTICK_WORKER" not in environ:
            found.append(f"{name}: its worker has another name after each start")
    return found


def _advertised() -> list[str]:
    line = re.search(r"(?m)^advertised\.listeners=(.+)$", DEPLOYED.read_text(encoding="utf-8"))
    assert line is not None
    return [listener.partition("://")[2] for listener in line[1].split(",")]


def kafka_is_where_it_says_it_is(compose: Compose) -> list[str]:
    """A client goes on at the advertised address: that of the published port on the host, the service's name within."""
    listeners = dict(
        listener.split("://")
        for listener in re.findall(r"(?m)^listeners=(.+)$", DEPLOYED.read_text(encoding="utf-8"))[0].split(",")
    )
    published = [str(port).rpartition(":") for port in compose["services"]["kafka"]["ports"]]
    expected = {f"kafka{listeners['PLAINTEXT']}"}
    expected |= {host for host, _, inside in published if f":{inside}" == listeners["HOST"]}
    return [] if set(_advertised()) == expected else [f"advertised are {_advertised()}, reached are {sorted(expected)}"]


def topics_are_those_of_the_service(compose: Compose) -> list[str]:
    kafka = load_settings(environ=compose["services"]["downtick"]["environment"]).kafka
    expected = [kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic]
    created = [call[call.index("--topic") + 1] for call in calls_of_topics(compose) if "--topic" in call]
    return [] if created == expected else [f"created are {created}, needed are {expected}"]


def calls_of_topics(compose: Compose) -> list[list[str]]:
    """What the one-shot asks kafka-topics.sh for: its script is run, with a function that shows its arguments."""
    [script] = compose["services"][ONE_SHOT]["command"]
    show = 'kafka_topics() { printf "%s " "$@"; echo; }\n'
    script = show + script.replace("$$", "$").replace("/opt/kafka/bin/kafka-topics.sh", "kafka_topics")
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def services_have_time_to_stop(compose: Compose) -> list[str]:
    found = []
    for name, service in compose["services"].items():
        grace = re.fullmatch(r"(\d+)s", service.get("stop_grace_period", "10s"))
        if name != ONE_SHOT and (grace is None or int(grace[1]) <= SHUTDOWN_SECONDS):
            found.append(f"{name} is killed after {service.get('stop_grace_period', '10s')}")
    return found


def no_secret_stands_in_clear(compose: Compose) -> list[str]:
    """The one exception: Grafana's password has a default, which opens an editor that listens on loopback alone."""
    allowed = {("grafana", "GF_SECURITY_ADMIN_PASSWORD"): "${GRAFANA_ADMIN_PASSWORD:-downtick}"}
    found = []
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            secret = re.search(r"(?i)passw|secret|token|credential|api_?key", key) or re.search(
                r"://[^/]*@", str(value)
            )
            if secret and allowed.get((name, key)) != value:
                found.append(f"{name}: {key}")
    return found


def grafana_shows_without_a_login_and_no_more(compose: Compose) -> list[str]:
    environment = compose["services"]["grafana"]["environment"]
    expected = {"GF_AUTH_ANONYMOUS_ENABLED": "true", "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer"}
    # Without these two Grafana 13 loses its data source on a read-only file system.
    expected |= {"GF_PLUGINS_PREINSTALL_DISABLED": "true", "GF_PLUGINS_PREINSTALL_AUTO_UPDATE": "false"}
    return [f"{key} is {environment.get(key)}" for key, value in expected.items() if environment.get(key) != value]


def dashboards_are_where_grafana_is_told(compose: Compose) -> list[str]:
    told = [
        provider["options"]["path"]
        for path in sorted((ROOT / "deploy/grafana/provisioning/dashboards").glob("*.yml"))
        for provider in yaml.safe_load(path.read_text(encoding="utf-8"))["providers"]
    ]
    mounted = {target: source for source, target, _ in _mounts(compose["services"]["grafana"])}
    wrong = [path for path in told if mounted.get(path) != "./deploy/grafana/dashboards"]
    home = Path(compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    if (
        mounted.get(str(home.parent)) != "./deploy/grafana/dashboards"
        or not (ROOT / "deploy/grafana/dashboards" / home.name).is_file()
    ):
        wrong.append(str(home))
    return [f"{path} is not ./deploy/grafana/dashboards" for path in wrong] if told else ["no provider of dashboards"]


Check = Callable[[Compose], list[str]]
CHECKS: list[Check] = [
    schema,
    tags_are_exact,
    what_is_tested_is_what_runs,
    ports_are_bound_to_loopback,
    all_but_the_one_shot_have_a_health_check,
    dependencies_are_waited_for_as_they_can_be,
    everybody_waits_for_what_it_needs,
    containers_are_hardened,
    nothing_grows_without_bound,
    files_are_there_and_read_only,
    servers_read_the_files_that_the_tests_use,
    settings_are_known,
    kafka_is_where_it_says_it_is,
    topics_are_those_of_the_service,
    services_have_time_to_stop,
    no_secret_stands_in_clear,
    grafana_shows_without_a_login_and_no_more,
    dashboards_are_where_grafana_is_told,
]


def test_readme_says_what_it_needs() -> None:
    (needed,) = re.findall(r"needs (Docker Engine \d+ and Compose [\d.]+, or newer)", FILE.read_text(encoding="utf-8"))
    assert f"Compose needs {needed}." in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_file_keeps_what_it_promises(check: Check) -> None:
    assert check(parsed()) == []


# Check, path of the value, what it is spoilt to (GONE: taken out), and what must be found then.
GONE = object()
SPOILT: list[tuple[Check, str, object, str]] = [
    (schema, "services/redis/restarts", "always", "restarts"),
    (schema, "services/kafka/healthcheck/retries", ["many"], "is not of type"),
    (tags_are_exact, "services/redis/image", "redis:latest", "redis: redis:latest is not one version"),
    (tags_are_exact, "services/kafka/image", "apache/kafka", "kafka: apache/kafka is not one version"),
    (tags_are_exact, "services/grafana/image", "grafana/grafana:13", "grafana: grafana/grafana:13 is not"),
    (what_is_tested_is_what_runs, "services/topics/image", "apache/kafka:4.3.1", "topics: apache/kafka:4.3.1 is not"),
    (what_is_tested_is_what_runs, "services/producer/image", "downtick:0.0.1", "producer: downtick:0.0.1 is not"),
    (ports_are_bound_to_loopback, "services/grafana/ports/0", "3000:3000", "grafana: 3000:3000"),
    (ports_are_bound_to_loopback, "services/kafka/ports/0", "0.0.0.0:9092:19092", "kafka: 0.0.0.0:9092:19092"),
    (all_but_the_one_shot_have_a_health_check, "services/producer/healthcheck", GONE, "producer has no health check"),
    (all_but_the_one_shot_have_a_health_check, "services/redis/healthcheck/test", ["NONE"], "redis has no health"),
    (all_but_the_one_shot_have_a_health_check, "services/redis/healthcheck/timeout", GONE, "leaves times to defaults"),
    (
        dependencies_are_waited_for_as_they_can_be,
        "services/downtick/depends_on/redis/condition",
        "service_started",
        "downtick waits for redis as service_started",
    ),
    (
        dependencies_are_waited_for_as_they_can_be,
        "services/producer/depends_on/topics/condition",
        "service_healthy",
        "producer waits for topics as service_healthy",
    ),
    (
        dependencies_are_waited_for_as_they_can_be,
        "services/topics/depends_on/broker",
        {"condition": "service_healthy"},
        "topics depends on broker, which does not exist",
    ),
    (
        dependencies_are_waited_for_as_they_can_be,
        "services/downtick/depends_on/grafana",
        {"condition": "service_healthy"},
        "with profile 'core' downtick starts without grafana",
    ),
    (
        everybody_waits_for_what_it_needs,
        "services/downtick/depends_on/topics",
        GONE,
        "downtick does not wait for topics",
    ),
    (containers_are_hardened, "services/grafana/read_only", False, "grafana: read_only is False"),
    (containers_are_hardened, "services/topics/cap_drop", GONE, "topics: cap_drop is None"),
    (containers_are_hardened, "services/kafka/security_opt", [], "kafka: security_opt is []"),
    (containers_are_hardened, "services/kafka/cap_add", ["SYS_ADMIN"], "kafka: cap_add"),
    (containers_are_hardened, "services/redis/tmpfs", ["/tmp"], "redis has no /tmp of limited size"),  # noqa: S108
    (containers_are_hardened, "services/redis/user", "0:0", "redis runs as root"),
    (nothing_grows_without_bound, "services/downtick/deploy", GONE, "downtick may take all memory"),
    (nothing_grows_without_bound, "services/kafka/logging/options/max-size", GONE, "kafka: its log is not rotated"),
    (files_are_there_and_read_only, "services/redis/volumes/0", "./deploy/radis:/etc/downtick:ro", "does not exist"),
    (files_are_there_and_read_only, "services/kafka/volumes/0", "./deploy/kafka:/etc/downtick", "kafka could write to"),
    (files_are_there_and_read_only, "volumes/redis-data", GONE, "redis: redis-data is not a volume"),
    (
        files_are_there_and_read_only,
        "services/downtick/build/dockerfile",
        "Dockerfile",
        "downtick: there is no Dockerfile",
    ),
    (
        servers_read_the_files_that_the_tests_use,
        "services/redis/command",
        ["redis-server", "--appendonly", "yes"],
        "redis is not told to read /etc/downtick/redis.conf",
    ),
    (
        servers_read_the_files_that_the_tests_use,
        "services/kafka/volumes/0",
        "./deploy/redis:/etc/downtick:ro",
        "kafka: /etc/downtick/server.properties is None",
    ),
    (
        settings_are_known,
        "services/downtick/environment/DOWNTICK_REDIS_URL",
        "redis://redis",
        "did you mean DOWNTICK_REDIS__URL",
    ),
    (settings_are_known, "services/producer/environment/DOWNTCK_WORKER", "a", "producer: DOWNTCK_WORKER is no setting"),
    (
        settings_are_known,
        "services/downtick/environment/DOWNTICK_HTTP__HOST",
        "127.0.0.1",
        "downtick is not reached at",
    ),
    (
        settings_are_known,
        "services/downtick/environment/DOWNTICK_REDIS__URL",
        "redis://cache:6379/0",
        "Redis is not at",
    ),
    (settings_are_known, "services/downtick/environment/DOWNTICK_WORKER", GONE, "another name after each start"),
    (
        settings_are_known,
        "services/producer/environment/DOWNTICK_KAFKA__BOOTSTRAP_SERVERS",
        "kafka:9999",
        "producer: Kafka is not at kafka:9999",
    ),
    (kafka_is_where_it_says_it_is, "services/kafka/ports/0", "127.0.0.1:9094:19092", "advertised are"),
    (kafka_is_where_it_says_it_is, "services/kafka/ports/0", "127.0.0.1:9092:9092", "advertised are"),
    (
        topics_are_those_of_the_service,
        "services/topics/command/0",
        "/opt/kafka/bin/kafka-topics.sh --create --topic prices",
        "created are ['prices']",
    ),
    (topics_are_those_of_the_service, "services/downtick/environment/DOWNTICK_KAFKA__INPUT_TOPIC", "ticks", "'ticks'"),
    (services_have_time_to_stop, "services/downtick/stop_grace_period", "10s", "downtick is killed after 10s"),
    (services_have_time_to_stop, "services/kafka/stop_grace_period", GONE, "kafka is killed after 10s"),
    (
        no_secret_stands_in_clear,
        "services/grafana/environment/GF_SECURITY_ADMIN_PASSWORD",
        "hunter2",
        "grafana: GF_SEC",
    ),
    (
        no_secret_stands_in_clear,
        "services/downtick/environment/DOWNTICK_REDIS__URL",
        "redis://:pw@redis:6379/0",
        "REDIS__URL",
    ),
    (
        grafana_shows_without_a_login_and_no_more,
        "services/grafana/environment/GF_AUTH_ANONYMOUS_ORG_ROLE",
        "Admin",
        "GF_AUTH_ANONYMOUS_ORG_ROLE is Admin",
    ),
    (
        dashboards_are_where_grafana_is_told,
        "services/grafana/volumes/1",
        "./deploy/grafana/dashboards:/elsewhere:ro",
        "is not ./deploy/grafana/dashboards",
    ),
]


@pytest.mark.parametrize(
    ("check", "path", "value", "finding"), SPOILT, ids=[f"{check.__name__}-{path}" for check, path, *_ in SPOILT]
)
def test_a_spoilt_copy_is_found(check: Check, path: str, value: object, finding: str) -> None:
    assert any(finding in found for found in check(spoilt(path, value)))


def test_every_check_is_shown_to_find_something() -> None:
    assert {check.__name__ for check, *_ in SPOILT} == {check.__name__ for check in CHECKS}


def spoilt(path: str, value: object) -> Compose:
    """The file with one value changed. YAML's merges share parts between services: a deep copy parts them."""
    compose = parsed()
    compose = {key: copy.deepcopy(part) for key, part in compose.items()}
    compose["services"] = {name: copy.deepcopy(service) for name, service in compose["services"].items()}
    *parents, last = path.split("/")
    node: Any = compose
    for name in parents:
        node = node[int(name) if isinstance(node, list) else name]
    if value is GONE:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    return compose
