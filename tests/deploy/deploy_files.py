"""What the files in `deploy/` say, as data."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import typer
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CPU_IMAGE = f"pairx:{PROJECT['project']['version']}"
GPU_IMAGE = f"{CPU_IMAGE}-gpu"
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def load(name: str) -> Any:
    """One YAML file."""
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def load_all(folder: str) -> list[dict[str, Any]]:
    """All objects in the files that the kustomization of a folder names."""
    names = load(f"{folder}/kustomization.yaml")["resources"]
    texts = [(DEPLOY / folder / name).read_text(encoding="utf-8") for name in names]
    return [item for text in texts for item in yaml.safe_load_all(text)]


def constraints() -> dict[str, str]:
    """Pinned versions by the name of the package."""
    lines = (DEPLOY / "constraints.txt").read_text(encoding="utf-8").split()
    return dict(line.split("==") for line in lines)


# ---------------------------------------------------------------------------------------------- the image


def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile: (word, the rest), with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage by its name; those of the stages that it starts from come first."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in dockerfile():
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            found[name] = [*found.get(source, [(word, source)])]
        else:
            found[name].append((word, rest))
    return found


def image_environment(stage: str = "cpu") -> dict[str, str]:
    """Environment of a container of ours; PATH is the base image's with what is put before it."""
    found = {"PATH": BASE_PATH}
    for word, rest in stages()[stage]:
        if word == "ENV":
            found |= {
                k: v.replace("$PATH", BASE_PATH)
                for k, v in (pair.split("=", 1) for pair in shlex.split(rest))
            }
    return found


def image_health() -> list[str]:
    """The command of the image's own health check."""
    (check,) = [rest for word, rest in stages()["cpu"] if word == "HEALTHCHECK"]
    return json.loads(check.partition("CMD ")[2])


def image_user(stage: str = "cpu") -> tuple[int, int]:
    """User and group that the image runs as."""
    *_, user = [rest for word, rest in stages()[stage] if word == "USER"]
    number, group = user.split(":")
    return int(number), int(group)


# ---------------------------------------------------------------------------------------------- compose


def compose(variables: dict[str, str], *names: str) -> dict[str, Any]:
    """Compose files laid over each other, with `${NAME:?…}` filled in; a missing one raises `KeyError`."""
    whole: dict[str, Any] = {}
    for name in names or ("compose.yaml",):
        text = (DEPLOY / name).read_text(encoding="utf-8")
        filled = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: variables[match[1]], text)
        whole = _over(whole, yaml.safe_load(filled))
    return whole


def _over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _over(below[key], value) if key in below else value for key, value in above.items()}


def example(name: str) -> dict[str, str]:
    """The variables of an example file; those that it leaves open are filled in."""
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {key: value or f"some-{key.lower().replace('_', '-')}" for key, value in pairs}


def health_of(service: dict[str, Any]) -> list[str] | None:
    """The command that says whether a service is well; nothing where nothing can be asked."""
    if "healthcheck" in service:
        kind, *command = service["healthcheck"]["test"]
        assert kind == "CMD"
        return command
    return image_health() if "HEALTH_URL" in service.get("environment", {}) else None


# ---------------------------------------------------------------------------------------------- Kubernetes


def pods(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Every pod's description in an object, wherever it is: whatever has containers is one."""
    if "containers" in item:
        return [item]
    return [pod for value in item.values() if isinstance(value, dict) for pod in pods(value)]


def containers(item: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers in an object, init containers included."""
    return [c for pod in pods(item) for c in [*pod.get("initContainers", []), *pod["containers"]]]


# ---------------------------------------------------------------------------------------------- commands


def parse(argv: list[str]) -> dict[str, Any]:
    """What a command line's own parser makes of it, without running it.

    Options that the parser does not know raise an error.
    """
    argv = [str(word) for word in argv]
    if argv[0] == "prefect":
        from prefect.cli._app import _app as prefect

        words = argv[2:] if argv[1] == "--no-prompt" else argv[1:]
        return prefect.parse_args(words, exit_on_error=False, print_error=False)[1].arguments
    if argv[0] == "pairx":
        from flows.cli.main import app as pairx

        command: Any = typer.main.get_command(pairx).commands[argv[1]]  # type: ignore[attr-defined]
    elif argv[:2] == ["dask", "scheduler"]:
        from distributed.cli.dask_scheduler import main as command
    elif argv[:2] == ["dask", "worker"]:
        from distributed.cli.dask_worker import main as command
    else:
        raise AssertionError(f"unknown command: {argv}")
    return command.make_context(argv[1], argv[2:]).params
