"""The image: one pinned base, wheels only, a user that is a number, and all that the package needs."""

from __future__ import annotations

import re
import shlex

import yaml

from tests.deploy.deploy_files import (
    DEPLOY,
    PROJECT,
    ROOT,
    dockerfile,
    image_environment,
    image_health,
    image_user,
    stages,
)

TARGETS = ("cpu", "gpu")


def instructions(stage, word):
    return [rest for found, rest in stages()[stage] if found == word]


def installs(stage):
    return [shlex.split(rest) for rest in instructions(stage, "RUN") if " install -c " in rest]


def test_the_base_is_one_release_of_the_python_that_the_project_asks_for():
    (base,) = {rest.partition(" AS ")[0] for word, rest in dockerfile() if word == "FROM"} - set(stages())
    version = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-bookworm", base)[1]
    assert PROJECT["project"]["requires-python"] == f">={version}"


def test_the_image_copies_what_exists_and_all_that_the_package_needs():
    for stage in ("build-cpu", "build-gpu"):
        copied = {source for rest in instructions(stage, "COPY") for source in rest.split()[:-1]}
        assert all((ROOT / source).exists() for source in copied)
        packages = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
        needed = {
            "pyproject.toml",
            PROJECT["project"]["readme"],
            *PROJECT["project"]["license-files"],
            *packages,
        }
        assert needed <= copied
        sent = {
            line[1:]
            for line in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
            if line.startswith("!")
        }
        assert sent == copied, "the builder gets what is copied, and nothing else"


def test_it_installs_pinned_wheels_with_extras_that_exist():
    extras = PROJECT["project"]["optional-dependencies"]
    for stage, wanted in (("build-cpu", {"s3"}), ("build-gpu", {"s3", "cuda"})):
        assert "PIP_ONLY_BINARY=:all:" in " ".join(instructions(stage, "ENV"))
        command = installs(stage)[-1]
        assert command[command.index("-c") + 1] == "deploy/constraints.txt"
        named = set(re.fullmatch(r"\.\[(.*)\]", command[-1])[1].split(","))
        assert named == wanted
        assert named <= set(extras)


def test_what_runs_has_neither_compiler_nor_sources_and_is_nobody():
    for target in TARGETS:
        assert not installs(target)
        assert not re.search(r"\b(apt-get|gcc|build-essential)\b", str(stages()[target]))
        (copied,) = instructions(target, "COPY")
        assert copied == f"--from=build-{target} /opt/pairx /opt/pairx"
        assert image_user(target) == (10001, 10001)
        words = [word for word, _ in stages()[target]]
        assert "RUN" not in words[words.index("USER") :]


def test_it_starts_a_command_that_is_installed_and_asks_for_health_where_there_is_some():
    (command,) = [yaml.safe_load(rest) for rest in instructions("cpu", "CMD")]
    assert command[0] in PROJECT["project"]["scripts"]
    program, option, code = image_health()
    assert (program, option) == ("python", "-c")
    compile(code, "health", "exec")


def test_nothing_reports_home_or_writes_outside_of_tmp():
    for target in TARGETS:
        environment = image_environment(target)
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert environment["DO_NOT_TRACK"] == "1"
        assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
        assert environment["HOME"] == "/tmp"
        assert environment["PREFECT_UI_STATIC_DIRECTORY"].startswith("/tmp/")
        assert environment["PATH"].startswith("/opt/pairx/bin:")
    assert image_environment("gpu")["NVIDIA_VISIBLE_DEVICES"] == "all"
