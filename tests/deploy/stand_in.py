"""Containers without a container engine: deployment files run word by word in Linux namespaces.

A `Container` has a network address of its own and is found by its name. Its root is read-only but for what is
mounted. It runs under a user id without a name, without capabilities, with the environment that it is given
and no other. Needs root.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

PYTHON = [sys.executable, "-I", str(Path(__file__).resolve())]
SPACES = ["setpriv", "--pdeathsig=KILL", "unshare", "--fork", "--kill-child"]
"""A process that is started by this ends with the process that started it."""
ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path(sys.prefix)
"""The environment that stands for the one that the image installs."""
IMAGE_PLACE = "/opt/pairx"
PASSWD = "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/tmp:/bin/sh\nseaweed:x:1000:1000::/tmp:/bin/sh\n"
"""Users of the foreign images have names; ours has none in its image."""
SYSTEM = ("bin", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr")


@dataclass(frozen=True)
class Container:
    """What one container is told to do, and what it may see and write."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    user: tuple[int, int]
    memory: tuple[str, ...] = ("/tmp",)
    """Where file systems in memory are mounted, writable by all."""
    mounts: dict[str, str] = field(default_factory=dict)
    """Places in the container → paths here that are seen there, writable."""
    readable: dict[str, str] = field(default_factory=dict)
    """The same, read-only."""


class Machine:
    """A machine with a bridge that its containers are joined by; all end with the block."""

    def __init__(self, logs: Path, names: list[str]) -> None:
        self.logs = logs
        self._addresses = {name: f"10.99.0.{i}" for i, name in enumerate(names, start=2)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Machine:
        self._switch = subprocess.Popen([*SPACES, "--net", "sleep", "infinity"])
        _wait_for(lambda: _network(self._switch.pid) != _network(os.getpid()))
        self._in_switch("ip", "link", "add", "bridge0", "type", "bridge")
        self._in_switch("ip", "link", "set", "bridge0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self.stop(name)
        self._switch.kill()
        self._switch.wait()

    def start(self, container: Container) -> None:
        """Start a container in the background; what it prints goes to a file of its name."""
        with (self.logs / f"{container.name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*SPACES, "--net", "--mount", "--pid", *PYTHON],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._running[container.name] = process
        _wait_for(lambda: _network(process.pid) != _network(os.getpid()))
        cable = self._cable(container.name)
        self._in_switch(
            "ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid)
        )
        self._in_switch("ip", "link", "set", cable, "master", "bridge0", "up")
        process.stdin.write(self._order(container, self._addresses[container.name]))
        process.stdin.close()

    def execute(
        self, container: Container, argv: list[str], seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command beside a running container, as its health check does.

        It has the container's network, user and environment. It has failed if it takes longer than so many
        seconds.
        """
        command = ["nsenter", "--net", f"--target={self._running[container.name].pid}"]
        order = self._order(dataclasses.replace(container, argv=tuple(argv)), None)
        command += ["timeout", "--signal=KILL", str(seconds), *SPACES, "--mount", "--pid", *PYTHON]
        return subprocess.run(command, input=order.decode(), capture_output=True, text=True)

    def ended(self, name: str, seconds: float = 0.0) -> int | None:
        """The exit code of a container that has ended, or ends within so many seconds; else nothing."""
        try:
            return self._running[name].wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, name: str) -> None:
        """End a container, whatever it is doing."""
        process = self._running.pop(name)
        process.kill()
        process.wait()
        # The cable goes with the container's network, but not at once, and its name may be needed again.
        subprocess.run([*self._switched(), "ip", "link", "delete", self._cable(name)], capture_output=True)

    def log(self, name: str) -> str:
        """What a container has printed."""
        return (self.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _order(self, container: Container, address: str | None) -> bytes:
        hosts = "127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in self._addresses.items())
        return json.dumps(dataclasses.asdict(container) | {"address": address, "hosts": hosts}).encode()

    def _in_switch(self, *command: str) -> None:
        subprocess.run([*self._switched(), *command], check=True)

    def _switched(self) -> list[str]:
        return ["nsenter", "--net", f"--target={self._switch.pid}"]

    def _cable(self, name: str) -> str:
        return f"to{self._addresses[name].rpartition('.')[2]}"


def why_not() -> str | None:
    """Why containers cannot be imitated here, or nothing."""
    missing = [tool for tool in ("unshare", "nsenter", "setpriv", "ip", "mount") if not shutil.which(tool)]
    if missing:
        return f"no {', '.join(missing)} here"
    if os.geteuid():
        return "only root can make namespaces with other users in them"
    trial = "ip link add bridge0 type bridge && ip link add cable type veth peer name end && mount -t tmpfs none /mnt"
    tried = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", trial], capture_output=True, text=True)
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


def _network(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the container did not come to be")
        time.sleep(0.01)


# ------------------------------------------------------------------------ inside, before the command starts


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _bind(source: str, target: str, *, writable: bool) -> None:
    if Path(source).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    _mount("--rbind", source, target)
    if not writable:
        _mount("-o", "remount,bind,ro", target)


def _build_root(order: dict) -> str:
    """A root with the system, the project and what is mounted, and nothing else of this machine."""
    root = "/mnt"
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "-o", "mode=755", "root", root)
    for here in (Path("/", name) for name in SYSTEM):
        if here.is_symlink():
            Path(f"{root}{here}").symlink_to(os.readlink(here))
        elif here.is_dir():
            _bind(str(here), f"{root}{here}", writable=False)
    _mount("--mkdir", "--rbind", "/dev", f"{root}/dev")
    _mount("--mkdir", "-t", "proc", "proc", f"{root}/proc")
    for place in order["memory"]:
        _mount("--mkdir", "-t", "tmpfs", "-o", "mode=1777", "memory", f"{root}{place}")
    for here in {INSTALLED, Path(sys.base_prefix), ROOT}:
        if not here.is_relative_to("/usr"):
            _bind(str(here), f"{root}{here}", writable=False)
    _bind(str(INSTALLED), f"{root}{IMAGE_PLACE}", writable=False)
    for kind, writable in (("mounts", True), ("readable", False)):
        for place, source in order[kind].items():
            _bind(source, f"{root}{place}", writable=writable)
    for name, text in (("hosts", order["hosts"]), ("passwd", PASSWD)):
        Path(root, f".{name}").write_text(text, encoding="utf-8")
        _mount("--bind", f"{root}/.{name}", f"{root}/etc/{name}")
    _mount("-o", "remount,ro", root)
    return root


def _join_network(address: str) -> None:
    _wait_for(lambda: not subprocess.run(["ip", "link", "show", "eth0"], capture_output=True).returncode)
    for command in (
        "link set lo up",
        f"address add {address}/24 dev eth0",
        "link set eth0 up",
        # The route leads nowhere, but programs find their own address by it.
        f"route add default via {address}",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def _become(order: dict) -> None:
    if order["address"]:
        _join_network(order["address"])
    os.chroot(_build_root(order))
    os.chdir("/tmp")
    user, group = (str(number) for number in order["user"])
    rights = [
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
    ]
    # A process that changes its user forgets whose end is its own: it is told after the change.
    last = ["setpriv", "--pdeathsig=KILL", "--", *order["argv"]]
    os.execvpe(
        "setpriv",
        ["setpriv", f"--reuid={user}", f"--regid={group}", *rights, "--", *last],
        order["environment"],
    )


if __name__ == "__main__":
    _become(json.load(sys.stdin))
