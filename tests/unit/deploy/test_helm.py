"""The Helm chart: rendered with several sets of values (deploy/helm/downtick/ci), and held against what it promises."""

import copy
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from consumer import cli, kafka_options
from consumer.settings import setting_fields
from consumer.settings_sources import load_settings
from consumer.stop import SHUTDOWN_SECONDS
from tests.unit.deploy.chart import CHART, DEPLOY, VALUES, Chart, Object, lint, notes, refused, render, run
from tests.unit.deploy.restricted import violations

KINDS = ["NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"]
OPERATORS = ["PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"]
OLDEST = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"].removeprefix(">=").removesuffix("-0")
NEWEST = kubernetes_validate.latest_version()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


# --- what Kubernetes and Helm themselves would say


@pytest.mark.parametrize("values", VALUES)
def test_lint_finds_nothing(values: str) -> None:
    done = lint(values)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout


def test_the_values_cover_every_kind_and_the_least_there_can_be() -> None:
    assert render("minimal").kinds() == KINDS
    assert render("everything").kinds() == sorted(KINDS + OPERATORS)
    assert render("standby").kinds() == sorted(set(KINDS) - {"NetworkPolicy"})
    assert render("keda").kinds() == sorted([*KINDS, "ScaledObject"])
    assert sorted(VALUES) == ["everything", "keda", "minimal", "standby"]


def validate(found: Object, version: str) -> None:
    """Raise: jsonschema.ValidationError where the strict schema of this Kubernetes, or of the operator, forbids it."""
    if found["kind"] in OPERATORS:
        schema = json.loads((Path(__file__).parent / "crds" / f"{found['kind']}.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(found)
    else:
        kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize("values", VALUES)
def test_every_object_is_valid_on_the_oldest_and_the_newest_kubernetes(values: str) -> None:
    assert {OLDEST, NEWEST} < set(kubernetes_validate.utils.all_versions())
    for version in (OLDEST, NEWEST):
        for found in render(values).objects:
            validate(found, version)


@pytest.mark.parametrize("kind", KINDS + OPERATORS)
def test_the_schemas_would_see_a_misspelt_field(kind: str) -> None:
    found = copy.deepcopy(render("everything").one(kind))
    found.setdefault("spec", found)["replicaz"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replicaz"):
        validate(found, NEWEST)


def test_an_older_kubernetes_is_refused() -> None:
    done = run("template", "prod", str(CHART), "-f", str(CHART / "ci/minimal-values.yaml"), "--kube-version", "1.28.15")
    assert done.returncode != 0
    assert "chart requires kubeVersion: >=1.29" in done.stderr


@pytest.mark.parametrize("release", ["prod", "downtick", "w" * 53, "w" * 51 + "-x"])
def test_names_and_labels_fit_whatever_the_release_is_called(release: str) -> None:
    chart = render("everything", release=release)
    names = {found["metadata"]["name"] for found in chart.objects}
    assert len(names) == 1
    (name,) = names
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    # controller-revision-hash is the name, a dash and up to ten; the pod's own name is a label and a host name.
    assert len(name) + 11 <= 63
    labels = [found["metadata"]["labels"] for found in chart.objects] + [chart.template["metadata"]["labels"]]
    assert all(len(value) <= 63 for each in labels for value in each.values())


def test_two_releases_in_one_namespace_do_not_meet() -> None:
    one, other = render("minimal"), render("minimal", release="staging")
    assert one.one("StatefulSet")["metadata"]["name"] != other.one("StatefulSet")["metadata"]["name"]
    assert one.spec("Service")["selector"] != other.spec("Service")["selector"]


# --- security


@pytest.mark.parametrize("values", VALUES)
def test_the_pod_may_run_under_the_restricted_profile(values: str) -> None:
    assert violations(render(values).pod) == []


def _set(path: str, value: object) -> Callable[[Object], None]:
    def change(pod: Object) -> None:
        *way, last = path.split(".")
        node: Any = pod
        for step in way:
            node = node[int(step)] if step.isdigit() else node[step]
        if value is None:
            del node[last]
        else:
            node[last] = value

    return change


CONTEXT = "containers.0.securityContext"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("hostNetwork", True, "hostNetwork"),
        ("volumes", [{"name": "x", "hostPath": {"path": "/"}}], "volume x: hostPath"),
        ("securityContext.runAsNonRoot", None, "downtick: runAsNonRoot"),
        ("securityContext.runAsUser", 0, "pod: runAsUser 0"),
        ("securityContext.seccompProfile", None, "downtick: seccompProfile"),
        ("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctl kernel.msgmax"),
        ("securityContext.seLinuxOptions", {"type": "spc_t"}, "pod: seLinuxOptions"),
        (f"{CONTEXT}.allowPrivilegeEscalation", None, "downtick: allowPrivilegeEscalation"),
        (f"{CONTEXT}.privileged", True, "downtick: privileged"),
        (f"{CONTEXT}.capabilities", {"drop": ["NET_RAW"]}, "downtick: capabilities not dropped"),
        (f"{CONTEXT}.capabilities.add", ["SYS_TIME"], "downtick: capabilities added"),
        (f"{CONTEXT}.runAsNonRoot", False, "downtick: runAsNonRoot"),
        (f"{CONTEXT}.procMount", "Unmasked", "downtick: procMount"),
        (f"{CONTEXT}.appArmorProfile", {"type": "Unconfined"}, "downtick: appArmorProfile"),
        ("containers.0.ports.0.hostPort", 8000, "downtick: hostPort"),
        ("containers.0.livenessProbe.httpGet.host", "10.0.0.1", "downtick: host of livenessProbe"),
    ],
)
def test_the_profile_would_see_each_of_these(path: str, value: object, said: str) -> None:
    pod = copy.deepcopy(render("everything").pod)
    _set(path, value)(pod)
    assert violations(pod) == [said]


def test_nothing_is_written_but_in_tmp() -> None:
    chart = render("everything")
    assert chart.container["securityContext"]["readOnlyRootFilesystem"] is True
    writable = [mount["mountPath"] for mount in chart.container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]  # noqa: S108
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}} in chart.pod["volumes"]


def test_the_user_is_a_number_that_is_not_root() -> None:
    context = render("minimal").pod["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (10001, 10001, 10001)


def test_workers_have_an_account_of_their_own_and_no_token_of_it() -> None:
    chart = render("minimal")
    account = chart.one("ServiceAccount")
    assert chart.pod["serviceAccountName"] == account["metadata"]["name"] != "default"
    assert chart.pod["automountServiceAccountToken"] is False
    assert account["automountServiceAccountToken"] is False


def test_secrets_come_by_reference_and_as_files() -> None:
    chart = render("everything")
    assert "Secret" not in chart.kinds()
    assert all("secretKeyRef" not in json.dumps(one) for one in chart.container["env"])
    (volume,) = [each for each in chart.pod["volumes"] if each["name"] == "secrets"]
    assert volume["projected"] == {
        "defaultMode": 0o440,  # the group is fsGroup
        "sources": [
            {"secret": {"name": "fall-watch-kafka", "items": [{"key": "client.json", "path": "kafka.client"}]}},
            {"secret": {"name": "fall-watch", "items": [{"key": "redis-url", "path": "redis.url"}]}},
        ],
    }
    mount = {"name": "secrets", "mountPath": "/run/secrets/downtick", "readOnly": True}
    assert mount in chart.container["volumeMounts"]
    environment = chart.environment()
    assert environment["DOWNTICK_KAFKA__CLIENT_FILE"] == "/run/secrets/downtick/kafka.client"
    assert environment["DOWNTICK_REDIS__URL_FILE"] == "/run/secrets/downtick/redis.url"
    assert not {"DOWNTICK_KAFKA__CLIENT", "DOWNTICK_REDIS__URL"} & environment.keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("settings.redis.url=redis://:hunter2@redis:6379/0", "settings.redis.url holds a password"),
        ("settings.redis.url=redis://redis:6379/0?password=hunter2", "settings.redis.url holds a password"),
        (r"settings.kafka.client.sasl\.password=hunter2", "settings.kafka.client has sasl.password"),
        (r"settings.kafka.client.sasl\.username=hunter2", "settings.kafka.client has sasl.username"),
        (r"settings.kafka.producer.ssl\.key\.pem=hunter2", "settings.kafka.producer has ssl.key.pem"),
        (r"settings.kafka.consumer.ssl\.keystore\.password=hunter2", "settings.kafka.consumer has ssl.keystore.pass"),
    ],
)
def test_a_secret_among_the_values_is_refused_and_not_shown(given: str, said: str) -> None:
    found = refused("minimal", given)
    assert said in found
    assert "hunter2" not in found


def test_what_may_be_a_secret_is_what_the_service_takes_for_one() -> None:
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    for pattern in (kafka_options._SECRET.pattern, kafka_options._PUBLIC.pattern):
        assert f"`{pattern}`" in helpers


# --- settings


def load(chart: Chart, folder: Path, files: dict[str, str] | None = None) -> dict[str, object]:
    """The settings that the pod's environment gives, by dotted name, the service's own reading of it."""
    environ = chart.environment() | {"DOWNTICK_WORKER": "prod-downtick-0"}
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
        environ[f"DOWNTICK_{name.replace('.', '__').upper()}_FILE"] = str(folder / name)
    settings: object = load_settings(environ=environ, env_file=_empty(folder))

    def read(name: str) -> object:
        node = settings
        for step in name.split("."):
            node = getattr(node, step)
        return node

    return {name: read(name) for name in setting_fields()}


def _empty(folder: Path) -> Path:
    path = folder / "env"
    path.write_text("")
    return path


def test_the_service_reads_every_setting_from_what_is_rendered(tmp_path: Path) -> None:
    files = {
        "redis.url": "rediss://downtick:hunter2@redis.redis:6379/0\n",
        "kafka.client": '{"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "sasl.username": "u"}',
    }
    found = load(render("everything"), tmp_path, files)
    given = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())["settings"]
    plain = {f"{group}.{name}": value for group, of in given.items() for name, value in of.items()}
    for name in ("kafka.consumer", "kafka.producer"):  # librdkafka is told everything as text
        text = {option: str(value).lower() for option, value in plain.pop(name).items()}
        assert found[name] == text
    assert {name: found[name] for name in plain} == plain
    assert found["restore.max_records"] == 50_000_000  # which Helm holds as a float, 5e+07
    assert found["redis.url"].get_secret_value() == files["redis.url"].strip()  # type: ignore[attr-defined]
    assert found["kafka.client"]["security.protocol"] == "SASL_SSL"  # type: ignore[index]
    assert found["model.path"] == Path("/var/lib/downtick/model/live")
    assert (found["http.host"], found["http.port"]) == ("0.0.0.0", 8000)  # noqa: S104


@pytest.mark.parametrize("values", ["minimal", "standby", "keda"])
def test_the_service_starts_with_what_is_rendered(values: str, tmp_path: Path) -> None:
    found = load(render(values), tmp_path)
    assert found["kafka.group_id"] == "downtick"
    assert found["worker"] == "prod-downtick-0"


def test_the_chart_knows_every_setting_but_those_that_it_gives() -> None:
    groups = SCHEMA["properties"]["settings"]["properties"]
    known = {f"{group}.{name}" for group, of in groups.items() for name in of["properties"]}
    assert known == setting_fields().keys() - {"worker", "http.host", "http.port", "model.path"}


def test_no_variable_is_set_twice() -> None:
    for values in VALUES:
        names = [one["name"] for one in render(values).container["env"]]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("settings.kafka.bootstrap_server=x", "at '/settings/kafka': additional properties 'bootstrap_server' not"),
        ("settings.http.port=80", "at '/settings': additional properties 'http' not allowed"),
        ("settings.worker=x", "at '/settings': additional properties 'worker' not allowed"),
        ("secrets.redis.url.name=x", "at '/secrets/redis/url': missing property 'key'"),
        ("secrets.kafka.group_id.name=x", "at '/secrets/kafka': additional properties 'group_id' not allowed"),
        ("keda.enabled=true", "at '/keda/partitions': minimum: got 0, want 1"),
        ("keda.minReplicas=0", "at '/keda/minReplicas': minimum: got 0, want 1"),
        ("terminationGracePeriodSeconds=10", "at '/terminationGracePeriodSeconds': minimum: got 10, want 15"),
        ("networkPolicy.kafka.ports=null", "at '/networkPolicy/kafka': missing property 'ports'"),
        ("image.digest=sha256:abc", "at '/image/digest'"),
        ("serviceMonitor.intervall=15s", "at '/serviceMonitor': additional properties 'intervall' not allowed"),
        ("image.repository=", "image.repository: name the image that you built"),
        ("settings.kafka.bootstrap_servers=", "settings.kafka.bootstrap_servers: name your brokers"),
        ("settings.redis.url=", "settings.redis.url, or secrets.redis.url where it holds a password: name your Redis"),
        ("secrets.redis.url.name=x,secrets.redis.url.key=y", "redis.url is in settings and in secrets: keep one"),
        ("keda.enabled=true,keda.partitions=2,keda.minReplicas=3", "keda.minReplicas is 3, and 2 partitions have no"),
    ],
)
def test_a_wrong_value_stops_the_install_in_words(given: str, said: str) -> None:
    assert said in refused("minimal", *given.split(","))


def test_every_object_of_values_is_closed_or_is_kubernetes_own() -> None:
    def objects(node: Any, path: str) -> Iterator[tuple[str, Object]]:
        if isinstance(node, dict):
            if node.get("type") == "object":
                yield path, node
            for name, child in node.items():
                yield from objects(child, f"{path}/{name}")

    open_ones = {path for path, node in objects(SCHEMA, "") if "additionalProperties" not in node}
    assert {path.removeprefix("/properties/").replace("/properties/", ".") for path in open_ones} == {
        *("affinity", "global", "model.volume", "resources.requests", "resources.limits"),
        *("resources.claims/items", "extraVolumes/items", "extraVolumeMounts/items", "tolerations/items"),
        *("networkPolicy.from/items", "networkPolicy.egress/items", "/$defs/peer.to/items"),
    }


def test_every_value_has_a_default_and_a_comment() -> None:
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    assert defaults.keys() == SCHEMA["properties"].keys() - {"global"}
    for name, of in SCHEMA["properties"].items():
        if of.get("additionalProperties") is False and name not in {"settings", "secrets"}:
            assert defaults[name].keys() == of["properties"].keys() - {"claims"}, name
    uncommented = [
        found[1]
        for found in re.finditer(r"^\n(\w+):", text, re.MULTILINE)  # a value that follows a blank line
        if found[1] not in {"image", "networkPolicy", "model"}  # commented inside
    ]
    assert uncommented == ["podAnnotations"]  # and its like, whose names say it


# --- what it tells


@pytest.mark.parametrize("values", VALUES)
def test_the_notes_name_commands_that_there_are(values: str) -> None:
    named = set(re.findall(r"(?:-- |`)downtick ([\w-]+)", notes(values)))
    assert named == {"health"}
    assert named <= cli._offered().keys() == cli._COMMANDS.keys()


def test_the_notes_say_where_workers_may_go() -> None:
    assert "reach DNS, Kafka on 9092 and Redis on 6379; nothing else." in notes("minimal")
    assert "Redis on 6379, 16379; and what networkPolicy.egress adds." in notes("everything")
    assert "network policy" not in notes("standby")


# --- workers


def test_a_worker_keeps_its_name_over_a_restart() -> None:
    chart = render("minimal")
    assert chart.kinds().count("StatefulSet") == 1
    (worker,) = [one for one in chart.container["env"] if one["name"] == "DOWNTICK_WORKER"]
    assert worker["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert chart.spec("StatefulSet")["serviceName"] == chart.one("Service")["metadata"]["name"]
    assert chart.spec("Service")["clusterIP"] == "None"


def test_workers_start_together_and_are_rolled_one_by_one() -> None:
    spec = render("standby").spec("StatefulSet")
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    assert spec["replicas"] == 24


def test_the_grace_period_is_longer_than_the_shutdown_may_take() -> None:
    assert render("minimal").pod["terminationGracePeriodSeconds"] == 30
    assert SCHEMA["properties"]["terminationGracePeriodSeconds"]["minimum"] > SHUTDOWN_SECONDS


def test_service_links_are_off() -> None:
    assert all(render(values).pod["enableServiceLinks"] is False for values in VALUES)


def test_a_long_restore_is_not_ready_and_not_killed() -> None:
    container = render("minimal").container
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert paths == {
        "startup": {"path": "/live", "port": "http"},
        "liveness": {"path": "/live", "port": "http"},
        "readiness": {"path": "/ready", "port": "http"},
    }


def test_the_model_may_take_minutes_to_load() -> None:
    probe = render("minimal").container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 300


def test_a_drain_takes_one_worker_at_a_time_and_is_not_held_up_by_those_in_trouble() -> None:
    chart = render("everything")
    spec = chart.spec("PodDisruptionBudget")
    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_everything_selects_the_workers_and_nothing_overrides_that() -> None:
    chart = render("everything", r"podLabels.app\.kubernetes\.io/instance=other")
    own = {"app.kubernetes.io/name": "downtick", "app.kubernetes.io/instance": "prod"}
    assert chart.template["metadata"]["labels"] == own | {"fall-watch-kafka-client": "true"}
    assert chart.spec("StatefulSet")["selector"]["matchLabels"] == own
    assert chart.spec("PodDisruptionBudget")["selector"]["matchLabels"] == own
    assert chart.spec("NetworkPolicy")["podSelector"]["matchLabels"] == own
    assert chart.spec("Service")["selector"] == own
    assert own.items() <= chart.one("Service")["metadata"]["labels"].items()
    assert chart.spec("ServiceMonitor")["selector"]["matchLabels"] == own
    assert [one["labelSelector"]["matchLabels"] for one in chart.pod["topologySpreadConstraints"]] == [own, own]


def test_memory_is_bounded_above_what_was_measured_and_the_cpu_is_not() -> None:
    measured = re.search(r"peak memory[^|]*\| ([\d.]+) GB", (DEPLOY.parent / "README.md").read_text())
    assert measured is not None
    resources = render("minimal").container["resources"]
    assert resources == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert 1.4 * float(measured[1]) * 1e9 < 2 * 2**30


def test_the_bundle_comes_from_a_volume_read_only_or_from_the_image() -> None:
    chart = render("everything")
    assert {"name": "model", "persistentVolumeClaim": {"claimName": "bundles", "readOnly": True}} in chart.pod[
        "volumes"
    ]
    mount = {"name": "model", "mountPath": "/var/lib/downtick/model", "readOnly": True}
    assert mount in chart.container["volumeMounts"]
    whole = render("minimal", "model.volume.persistentVolumeClaim.claimName=bundles")
    assert whole.environment()["DOWNTICK_MODEL__PATH"] == "/var/lib/downtick/model"
    assert "DOWNTICK_MODEL__PATH" not in render("minimal").environment()


def test_the_image_is_named_by_digest_tag_or_version() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert f'version = "{version}"' in (DEPLOY.parent / "pyproject.toml").read_text()
    assert render("minimal").container["image"] == f"registry.example/downtick:{version}"
    assert render("minimal", "image.tag=v9").container["image"] == "registry.example/downtick:v9"
    assert render("everything").container["image"].startswith("registry.example/downtick@sha256:0123")
    assert render("everything").pod["imagePullSecrets"] == [{"name": "registry"}]


def test_what_an_operator_adds_is_there() -> None:
    chart = render("everything")
    given = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "terminationGracePeriodSeconds"):
        assert chart.pod[name] == given[name]
    assert chart.container["resources"] == given["resources"]
    assert chart.container["imagePullPolicy"] == "Always"
    assert chart.template["metadata"]["annotations"] == given["podAnnotations"]
    assert given["extraVolumes"][0] in chart.pod["volumes"]
    assert given["extraVolumeMounts"][0] in chart.container["volumeMounts"]


# --- the network


def ports(rule: Object) -> list[tuple[object, str]]:
    return [(one["port"], one["protocol"]) for one in rule["ports"]]


def test_workers_are_reached_on_the_http_port_and_reach_dns_kafka_and_redis() -> None:
    spec = render("minimal").spec("NetworkPolicy")
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [ports(rule) for rule in spec["ingress"]] == [[("http", "TCP")]]
    dns, kafka, redis = spec["egress"]
    assert ports(dns) == [(53, "UDP"), (53, "TCP")]
    assert (ports(kafka), ports(redis)) == ([(9092, "TCP")], [(6379, "TCP")])
    assert not any("to" in rule for rule in spec["egress"])
    assert "from" not in spec["ingress"][0]


def test_whom_they_reach_and_who_reaches_them_can_be_narrowed() -> None:
    spec = render("everything").spec("NetworkPolicy")
    given = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())["networkPolicy"]
    assert spec["ingress"][0]["from"] == given["from"]
    dns, kafka, redis, more = spec["egress"]
    assert {port for port, _ in ports(dns)} == {53, 5353}  # 5353: on OpenShift, whose policies see the pods' own port
    assert more == {"ports": [{"port": 443, "protocol": "TCP"}]}
    assert kafka == {"ports": [{"port": 9094, "protocol": "TCP"}], "to": given["kafka"]["to"]}
    assert (ports(redis), redis["to"]) == ([(6379, "TCP"), (16379, "TCP")], given["redis"]["to"])


@pytest.mark.parametrize(("values", "args"), [("minimal", ["run"]), ("everything", ["run", "--accept-gap"])])
def test_a_gap_is_accepted_only_where_the_values_say_so(values: str, args: list[str]) -> None:
    (container,) = render(values).spec("StatefulSet")["template"]["spec"]["containers"]
    assert container["args"] == args


def test_the_service_can_be_stopped_by_its_values() -> None:
    assert render("minimal", "replicas=0").spec("StatefulSet")["replicas"] == 0


# --- monitoring


def test_prometheus_scrapes_workers_that_are_not_ready_too_under_the_agreed_job() -> None:
    chart = render("everything")
    spec, service = chart.spec("ServiceMonitor"), chart.one("Service")
    assert service["metadata"]["labels"][spec["jobLabel"]] == "downtick"
    (endpoint,) = spec["endpoints"]
    endpoint = {name: endpoint[name] for name in ("port", "path", "interval")}
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "30s"}
    assert service["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert chart.one("ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize("group", ["downtick", "other"])
def test_a_target_says_its_group_and_pod(group: str) -> None:
    chart = render("everything", f"settings.kafka.group_id={group}")
    (endpoint,) = chart.spec("ServiceMonitor")["endpoints"]
    by_label = {one["targetLabel"]: one for one in endpoint["relabelings"]}
    assert by_label["group"]["replacement"] == f"default/{group}"  # a name is unique on its own Kafka only
    assert by_label["instance"]["sourceLabels"] == ["__meta_kubernetes_pod_name"]


def rule_files() -> list[Path]:
    return sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))


def test_the_operators_rules_are_the_very_rules_of_prometheus() -> None:
    files = rule_files()
    assert files
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    chart = render("everything", "prometheusRule.runbookBase=")
    assert chart.spec("PrometheusRule")["groups"] == groups
    names = [group["name"] for group in groups]
    assert len(names) == len(set(names))
    assert "{{ $labels" in json.dumps(
        groups
    )  # so the equality above shows that Helm leaves Prometheus' templates alone
    assert render("everything").one("PrometheusRule")["metadata"]["labels"]["release"] == "prometheus"


def test_an_alerts_runbook_is_where_the_values_say() -> None:
    groups = render("everything").spec("PrometheusRule")["groups"]
    urls = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert urls
    assert all(url.startswith("https://git.example/downtick/docs/runbook.md#downtick") for url in urls)


@pytest.mark.parametrize("interval", ["31s", "1m", "60s", "0s", "500ms"])
def test_an_interval_too_long_for_the_rules_is_refused(interval: str) -> None:
    assert "/serviceMonitor/interval" in refused("everything", f"serviceMonitor.interval={interval}")


def test_a_packaged_chart_carries_the_rules_byte_for_byte(tmp_path: Path) -> None:
    done = run("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("downtick-*.tgz")
    with tarfile.open(package) as tar:
        tar.extractall(tmp_path, filter="data")
    packed = sorted((tmp_path / "downtick" / "files" / "rules").iterdir())
    assert [(path.name, path.read_bytes()) for path in packed] == [(p.name, p.read_bytes()) for p in rule_files()]
    assert not (tmp_path / "downtick" / "ci").exists()


def test_a_chart_without_its_rules_says_so(tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "downtick", ignore=shutil.ignore_patterns("files"))
    values = str(CHART / "ci" / "everything-values.yaml")
    done = run("template", "prod", str(tmp_path / "downtick"), "--values", values)
    assert done.returncode != 0
    assert "files/rules holds no rules" in done.stderr


# --- scaling


def test_keda_scales_by_lag_between_one_worker_and_one_per_partition() -> None:
    spec = render("keda").spec("ScaledObject")
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 6)
    assert "idleReplicaCount" not in spec
    (trigger,) = spec["triggers"]
    assert trigger == {
        "type": "kafka",
        "useCachedMetrics": True,
        "metadata": {
            "bootstrapServers": "kafka:9092",
            "consumerGroup": "downtick",
            "topic": "prices",
            "offsetResetPolicy": "earliest",
            "lagThreshold": "20000",
            "limitToPartitionsWithLag": "true",
            "allowIdleConsumers": "false",
            "excludePersistentLag": "true",
            "version": "3.0.0",
        },
    }


def test_the_lag_of_one_more_worker_is_held_against_what_one_was_measured_at() -> None:
    measured = re.search(r"updates/s on a backlog[^|]*\| ([\d,]+) \|", (DEPLOY.parent / "README.md").read_text())
    assert measured is not None
    assert f"A worker was measured at {measured[1]} a second on a backlog." in (CHART / "values.yaml").read_text()


def test_keda_takes_the_defaults_that_the_service_has() -> None:
    metadata = render("keda").spec("ScaledObject")["triggers"][0]["metadata"]
    fields = setting_fields()
    for parameter, setting in (("consumerGroup", "group_id"), ("topic", "input_topic"), ("offsetResetPolicy", "start")):
        assert metadata[parameter] == fields[f"kafka.{setting}"].default


def test_keda_watches_the_group_and_topic_that_are_set() -> None:
    metadata = render("everything").spec("ScaledObject")["triggers"][0]["metadata"]
    assert metadata["bootstrapServers"] == "b-1.kafka:9094,b-2.kafka:9094"
    assert (metadata["consumerGroup"], metadata["topic"]) == ("fall-watch", "ticks")
    assert metadata["offsetResetPolicy"] == "latest"
    assert metadata["lagThreshold"] == "5000000"  # not 5e+06, which KEDA cannot read
    assert (metadata["tls"], metadata["sasl"]) == ("enable", "scram_sha512")


def test_keda_scales_this_statefulset_and_the_chart_leaves_the_number_to_it() -> None:
    chart = render("keda")
    stateful = chart.one("StatefulSet")
    assert chart.spec("ScaledObject")["scaleTargetRef"] == {
        "apiVersion": stateful["apiVersion"],
        "kind": "StatefulSet",
        "name": stateful["metadata"]["name"],
    }
    assert "replicas" not in stateful["spec"]
    assert render("minimal").spec("StatefulSet")["replicas"] == 1


def test_keda_scales_up_in_one_step_and_down_slowly() -> None:
    behavior = render("keda").spec("ScaledObject")["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["policies"] == [{"type": "Pods", "value": 6, "periodSeconds": 60}]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 60
    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 900,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
    }


def test_keda_gets_its_credentials_by_reference() -> None:
    chart = render("everything")
    (trigger,) = chart.spec("ScaledObject")["triggers"]
    assert trigger["authenticationRef"] == {"name": chart.one("TriggerAuthentication")["metadata"]["name"]}
    assert chart.spec("TriggerAuthentication")["secretTargetRef"] == [
        {"parameter": "password", "name": "keda-kafka", "key": "password"},
        {"parameter": "username", "name": "keda-kafka", "key": "username"},
    ]
    assert "authenticationRef" not in render("keda").spec("ScaledObject")["triggers"][0]
