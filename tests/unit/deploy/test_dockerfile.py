"""deploy/Dockerfile as a text: what must hold whoever builds it. tests/integration/test_image.py builds it."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from consumer.settings import Http
from tests.support.tools import missing

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")
BUILD_TOOLS = {"libclang", "pip", "setuptools", "wheel"}


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined; `stage` counts from 0, -1 before the first FROM."""

    name: str
    text: str
    stage: int


def _instructions() -> list[Instruction]:
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found: list[Instruction] = []
    stage = -1
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, text = line.strip().partition(" ")
            stage += name == "FROM"
            found.append(Instruction(name, text.strip(), stage))
    return found


INSTRUCTIONS = _instructions()
LAST = INSTRUCTIONS[-1].stage


def _all(name: str, stage: int | None = None) -> list[str]:
    return [i.text for i in INSTRUCTIONS if i.name == name and stage in {None, i.stage}]


def _copied() -> list[str]:
    """What COPY takes from the context."""
    return [source for text in _all("COPY") if not text.startswith("--from=") for source in text.split()[:-1]]


def _locked(path: Path) -> dict[tuple[str, str], tuple[str, int]]:
    """(package, marker) → (version, number of hashes)."""
    found = {}
    for block in re.split(r"\n(?=[a-z])", path.read_text(encoding="utf-8")):
        match = re.match(r"([a-z0-9-]+)==([^\s;]+)(?: ; ([^\\\n]+?))? ?(?:\\\n|$)", block)
        if match:
            found[match[1], match[3] or ""] = match[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))
    return found


SERVICE, EVERYTHING = (_locked(ROOT / name) for name in ("deploy/requirements.lock", "requirements.lock"))


def test_hadolint_has_nothing_to_say() -> None:
    if not HADOLINT.exists():
        missing("hadolint's wheel is not for this machine")
    done = subprocess.run(
        [str(HADOLINT), "--no-color", "--failure-threshold=style", str(DOCKERFILE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_no_rule_of_hadolint_is_silenced() -> None:
    assert "hadolint ignore" not in DOCKERFILE.read_text(encoding="utf-8")
    assert not [path for folder in (ROOT, ROOT / "deploy") for path in folder.glob(".hadolint.y*ml")]


def test_every_stage_begins_with_the_base_image_or_a_stage_before_it() -> None:
    assert [i.text.partition("=")[0] for i in INSTRUCTIONS if i.stage == -1] == ["BASE_IMAGE"]
    stages: list[str] = []
    for text in _all("FROM"):
        base, *name = re.split(r"\s+AS\s+", text)
        assert base == "${BASE_IMAGE}" or base in stages
        stages += name
    assert len(_all("FROM")) >= 2
    assert _all("FROM")[-1] == "${BASE_IMAGE}"  # the result holds nothing of a stage but what is copied


def test_the_base_image_is_named_in_full_and_to_the_patch() -> None:
    default = next(text for text in _all("ARG") if text.startswith("BASE_IMAGE="))
    assert re.fullmatch(r"BASE_IMAGE=docker\.io/library/python:3\.1[123]\.\d+-slim-[a-z]+", default)


def test_every_install_is_held_to_hashes_or_to_the_wheel_just_made() -> None:
    commands = [part for text in _all("RUN") for part in re.split(r"&&|;", text)]
    installs = [part for part in commands if re.search(r"\b(pip (install|sync)|uv build)\b", part)]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or re.search(r"--no-deps dist/\*\.whl", install), install
    assert not [part for part in commands if re.search(r"\b(apt|apt-get|curl|wget|ADD|npm)\b", part)]
    assert not _all("ADD")


def test_dependencies_are_installed_before_the_code_is_copied() -> None:
    install = next(n for n, i in enumerate(INSTRUCTIONS) if "deploy/requirements.lock" in i.text and i.name == "RUN")
    code = next(n for n, i in enumerate(INSTRUCTIONS) if i.name == "COPY" and i.text.startswith("consumer"))
    assert install < code
    assert INSTRUCTIONS[install].stage < INSTRUCTIONS[code].stage
    large, small = (text for text in _all("COPY", LAST))
    assert (large.split()[0], small.split()[0]) == ("--from=dependencies", "--from=project")


def test_its_user_is_a_number_and_not_root() -> None:
    user = _all("USER", LAST)
    assert len(user) == 1
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user[0])
    root_only = [n for n, i in enumerate(INSTRUCTIONS) if i.stage == LAST and i.name in {"RUN", "COPY"}]
    assert max(root_only) < next(n for n, i in enumerate(INSTRUCTIONS) if i.name == "USER")


def test_it_is_the_first_process_and_told_to_end_by_sigterm() -> None:
    assert [json.loads(text) for text in _all("ENTRYPOINT", LAST)] == [["downtick"]]
    assert [json.loads(text) for text in _all("CMD", LAST)] == [["run"]]
    assert _all("STOPSIGNAL", LAST) == ["SIGTERM"]


def test_its_health_check_is_the_command_for_it() -> None:
    (check,) = _all("HEALTHCHECK", LAST)
    options, command = check.split(" CMD ")
    assert json.loads(command) == ["downtick", "health"]
    times = dict(re.findall(r"--([a-z-]+)=(\d+)", options))
    assert int(times["timeout"]) > 2  # `downtick health` waits 2 s for an answer, and says so itself
    assert int(times["start-period"]) >= 60


def test_it_listens_on_the_port_that_it_exposes_for_everybody() -> None:
    assert _all("EXPOSE", LAST) == [str(Http().port)]
    assert "DOWNTICK_HTTP__HOST=0.0.0.0" in " ".join(_all("ENV", LAST)).split()


def test_its_labels_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z]+)="([^"]*)"', " ".join(_all("LABEL", LAST))))
    assert labels == {
        "title": project["name"],
        "description": project["description"],
        "licenses": project["license"],
        "version": "${VERSION}",
        "revision": "${REVISION}",
    }
    assert f"VERSION={project['version']}" in _all("ARG", LAST)


def test_everything_copied_is_there() -> None:
    assert [source for source in _copied() if not (ROOT / source).exists()] == []


def test_the_build_is_handed_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    first, *others = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    assert {line[1:] for line in others if line.startswith("!")} == set(_copied())
    assert others[-1] == "**/__pycache__"  # the last pattern that fits decides


def test_no_test_no_measurement_and_nothing_hidden_is_copied() -> None:
    assert not [path for path in _copied() if path.startswith((".", "/", "tests", "bench", "docs")) or "*" in path]


def test_the_images_lock_has_the_versions_of_the_whole_one() -> None:
    assert len(SERVICE) > 20
    for package, (version, _) in SERVICE.items():
        assert package in EVERYTHING, package
        assert EVERYTHING[package][0] == version, package


def test_every_package_of_the_images_lock_has_hashes() -> None:
    lines = (ROOT / "deploy" / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert len(SERVICE) == len([line for line in lines if re.match(r"[^\s#]", line)])
    assert [package for package, (_, hashes) in SERVICE.items() if not hashes] == []


def test_the_images_lock_holds_every_dependency_and_no_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {package for package, _ in SERVICE}

    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[A-Za-z0-9-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]

    assert names(project["dependencies"]) <= locked
    extras = names([one for extra in project["optional-dependencies"].values() for one in extra])
    assert not (extras - names(project["dependencies"])) & locked
    assert not BUILD_TOOLS & locked
