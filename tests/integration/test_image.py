"""deploy/Dockerfile as a whole: built on a bare Debian, run on a read-only root, and held to the reference.

Opt-in (`make image-test`), because it takes root, podman, debootstrap, gigabytes and minutes."""

import itertools
import json
import re
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from consumer.sandbox import EmbeddedRedis
from tests.support.broker import Broker
from tests.support.load import events
from tests.support.podman import Podman, PodmanMissing
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.reference_model import KerasModel
from tests.support.service import ROOT
from tests.support.system import System

pytestmark = pytest.mark.timeout(2400)

SEED = 4711
UPDATES = 2_000
STOP = 10  # seconds that the design gives a worker to end

# Every module that the service has loaded by the time it predicts, and has no bytecode for.
_NOT_COMPILED = """
import sys
import consumer.commands.run, consumer.commands.health, consumer.service
from model.runtime import tensorflow
tensorflow()
specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
sources = [spec for spec in specs if spec and spec.cached and str(spec.origin).endswith(".py")]
assert len(sources) > 500, len(sources)
from pathlib import Path
print([spec.name for spec in sources if not Path(spec.cached).exists()])
"""


class Built:
    """The image, and what the run is to tell."""

    def __init__(self, podman: Podman) -> None:
        self.podman = podman
        began = time.monotonic()
        self.tag = podman.build(
            str(ROOT / "deploy" / "Dockerfile"), context=ROOT, BASE_IMAGE=podman.base, REVISION="0123abc"
        )
        self.build_seconds = time.monotonic() - began
        self.config: dict[str, Any] = json.loads(podman.say("inspect", "--type=image", self.tag))[0]["Config"]

    def shell(self, script: str, *, user: str | None = None) -> str:
        return self.podman.run(self.tag, "-c", script, entrypoint="sh", user=user)

    def size(self, tag: str) -> int:
        return int(self.podman.say("inspect", "--type=image", "--format={{.Size}}", tag))


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    if not request.config.getoption("--image"):
        pytest.skip("an image is built only with --image (make image-test)")

    with ExitStack() as stack:
        try:
            podman = stack.enter_context(Podman(tmp_path_factory.mktemp("podman")))
        except PodmanMissing as missing:
            pytest.skip(f"podman needs {missing}")
        yield Built(podman)


def test_it_builds_on_a_bare_debian(built: Built) -> None:
    python = built.shell("python --version")
    assert python.startswith("Python 3.13.")
    base, whole = (built.size(tag) / 1e6 for tag in (built.podman.base, built.tag))
    version = built.podman.say("version", "--format={{.Client.Version}}")
    print(
        f"\npodman {version}, {python}; base {base:.0f} MB, image {whole:.0f} MB, built in {built.build_seconds:.0f} s"
    )


def test_its_user_is_a_number_and_not_root(built: Built) -> None:
    assert built.config["User"] == "10001:10001"
    assert built.shell("id -u; id -g").split() == ["10001", "10001"]


@pytest.mark.parametrize("folder", ["/opt/downtick", "/opt/project", "/etc/downtick"])
def test_its_user_may_write_nothing_in(built: Built, folder: str) -> None:
    mine = "-user 10001 -o -group 10001 -o -perm /o+w ! -type l"
    assert built.shell(rf"find {folder} \( {mine} \)", user="0") == ""


def test_no_build_tool_is_in_it(built: Built) -> None:
    base = "/usr/bin/python3 -m pip --version"
    assert built.podman.run(built.podman.base, "-c", base, entrypoint="sh").startswith("pip ")  # it was there
    tools = "gcc cc g++ c++ clang ld as make cmake pip pip3 uv git"
    assert built.shell(f"for tool in {tools}; do command -v $tool; done; true") == ""
    modules = ["pip", "setuptools", "wheel", "clang", "uv", "pytest", "noida_db", "lightgbm"]
    found = f"import importlib.util as u; print([m for m in {modules} if u.find_spec(m)])"
    for python in ("/opt/downtick/bin/python", "/usr/bin/python3"):
        assert built.podman.run(built.tag, "-c", found, entrypoint=python) == "[]"


def test_only_the_packages_and_the_program_are_of_the_project(built: Built) -> None:
    there = built.shell("ls /opt /opt/project").split()
    assert there[:3] == ["/opt:", "downtick", "project"]
    assert re.fullmatch(
        r"bin consumer downtick-[\d.]+\.dist-info model state", " ".join(there[there.index("/opt/project:") + 1 :])
    )
    left = "ls -A /etc/downtick /tmp; ls -d /build ~root/.[a-z]* | grep -v -e bashrc -e profile; true"
    found = built.podman.run(built.tag, "-c", left, entrypoint="sh", user="0", tmp=False)
    assert found.split() == ["/etc/downtick:", "/tmp:"]  # noqa: S108 - the image's


def test_its_labels_tell_version_and_revision(built: Built) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert built.config["Labels"]["org.opencontainers.image.version"] == project["version"]
    assert built.config["Labels"]["org.opencontainers.image.revision"] == "0123abc"
    assert built.podman.run(built.tag, "--version", entrypoint="downtick") == f"downtick {project['version']}"


def test_nothing_is_compiled_when_it_starts(built: Built) -> None:
    assert built.podman.run(built.tag, "-c", _NOT_COMPILED, entrypoint="python").splitlines()[-1] == "[]"


def test_the_service_in_it_predicts_as_the_reference_does_and_ends_with_0(
    built: Built, embedded: Broker, own_redis: EmbeddedRedis, model: KerasModel, tmp_path: Path
) -> None:
    podman = built.podman
    port = free_port()
    consumer = {"partition.assignment.strategy": "range"}
    with System(tmp_path, embedded, own_redis.url, model, partitions=3, consumer=consumer) as system:
        settings = {**system.settings, "http.port": str(port), "worker": "one"}
        environment = {f"DOWNTICK_{name.replace('.', '__').upper()}": value for name, value in settings.items()}
        began = time.monotonic()
        with podman.running(built.tag, environment) as name:

            def logs() -> str:
                return podman.say("logs", name)

            def healthy() -> bool:
                assert podman.say("inspect", "--format={{.State.Running}}", name) == "true", logs()
                return _health(podman, name)

            wait_until(healthy, within=120, what=logs, every=0.5)
            start = time.monotonic() - began
            system.produce(list(itertools.islice(events(SEED, 20), UPDATES)))
            system.wait_until_done(60)
            system.check()
            predictions = len(system.predictions())
            assert predictions > UPDATES / 2

            user = podman.say("exec", name, "cat", "/proc/1/status")
            assert re.search(r"^Name:\s+downtick$", user, re.MULTILINE)  # it is the first process: signals reach it
            assert re.search(r"^Uid:(\s+10001){4}$", user, re.MULTILINE)
            assert re.search(r"^CapEff:\s+0+$", user, re.MULTILINE)
            written = podman.say("exec", name, "find", "/tmp", "-type", "f")  # noqa: S108 - the container's

            own_redis.stop()
            wait_until(lambda: not _health(podman, name), within=60, what="unhealthy without Redis")
            own_redis.start()
            wait_until(healthy, within=60, what=logs)

            began = time.monotonic()
            podman.say("stop", f"--time={STOP}", name)
            stop = time.monotonic() - began
            assert podman.say("inspect", "--format={{.State.ExitCode}}", name) == "0", logs()
            assert stop < STOP
            print(
                f"\nhealthy after {start:.1f} s, {UPDATES} updates, {predictions} predictions as the reference's; "
                f"unhealthy without Redis, healthy again; stopped in {stop:.1f} s with 0; "
                f"in /tmp: {written or 'nothing'}"
            )


def _health(podman: Podman, name: str) -> bool:
    """The image's own health check, run once."""
    try:
        podman.say("healthcheck", "run", name)
    except AssertionError:
        return False
    return True
