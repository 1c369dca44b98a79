"""One fault at one moment: the run is struck, and must end as it should.

The same command must then give the rows of an undisturbed run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from hashlib import blake2b
from random import Random
from typing import Any

from schemas.stages import STAGES
from tests.flows.faults.course import finished_files
from tests.flows.faults.fault import Ends, Fault, Scene
from tests.flows.faults.site import Site, command_here
from tests.flows.running import PAIRX, Command, run_arguments

_GOLDEN = 0.6180339887498949
_REPORTED = re.compile(
    rf"(\d\d:\d\d:\d\d )?(note: |({'|'.join(STAGES)}|report) *[ :]|(report|next|tonight): |[a-z]+ \d+ [=≠] |$)"
)
"""What a good run may print."""
_TRACEBACK = re.compile(r'Traceback \(most recent call last\)|^ *File "[^"]+", line \d+', re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What came of a trial: nothing in `fell` means that all held."""

    fault: str
    seed: int
    fell: tuple[str, ...]
    moment: str = ""
    code: int | None = None
    seconds: float = 0.0
    """From the strike to the end of the command."""
    said: str = ""

    def row(self) -> dict[str, Any]:
        return asdict(self)


def conduct(fault: Fault, seed: int, site: Site) -> Result:
    """Strike a run with a fault at the moment that belongs to the seed, and run it again."""
    rng = Random(f"{fault.name} {seed}")
    course = fault.course(site)
    moment = course.draw(rng, share_of(fault, seed))
    folder = site.folder / f"{fault.name.replace(' ', '_')}_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    scene = Scene(site, rng, course, moment, folder, course.catalogue)
    folder.mkdir(parents=True)
    try:
        return _Trial(fault, scene, seed).result()
    finally:
        if scene.command:
            scene.command.kill()
        shutil.rmtree(folder, ignore_errors=True)


def share_of(fault: Fault, seed: int) -> float:
    """The place of the strike in the run's course.

    Any number of seeds spreads evenly, and each fault begins elsewhere.
    """
    first = int.from_bytes(blake2b(fault.name.encode(), digest_size=4).digest()) / 2**32
    return (first + seed * _GOLDEN) % 1


class _Trial:
    """One trial's steps; what does not hold is collected."""

    def __init__(self, fault: Fault, scene: Scene, seed: int) -> None:
        self.fault, self.scene, self.seed = fault, scene, seed
        self.fell: list[str] = []

    def result(self) -> Result:
        code, seconds, said = None, 0.0, ""
        with self.fault.around(self.scene):
            try:
                code, seconds, said = self._struck()
                self.fault.mend(self.scene)
                if code != 0:
                    self._again()
                self._compare()
            except AssertionError as error:
                self._fell(str(error))
        return Result(
            self.fault.name, self.seed, tuple(self.fell), str(self.scene.moment), code, seconds, said
        )

    def _fell(self, what: str) -> None:
        self.fell.append(what[-3000:])

    def _words(self, **cluster: Any) -> list[str]:
        scene = self.scene
        chosen = {**scene.course.settings, **self.fault.settings(), **scene.settings, **cluster}
        return run_arguments(scene.catalogue, scene.warehouse, self.fault.address(scene), **chosen)

    def _start(self) -> Command:
        scene = self.scene
        if self.fault.own_cluster:
            words = self._words(cluster="local", workers=self.fault.workers)
        else:
            words = self._words(**{"cluster": scene.site.scheduler, **scene.settings})
        server = None if self.fault.own_server else scene.site.server
        return Command.start(scene.folder / "struck.log", [*PAIRX, *words], server, **scene.environment)

    def _struck(self) -> tuple[int | None, float, str]:
        scene, fault, moment = self.scene, self.fault, self.scene.moment
        fault.begin(scene)
        scene.command = self._start()
        fault.started(scene)
        if fault.strikes:
            scene.command.wait_for(lambda: fault.committed(scene) >= moment.files, scene.course.patience)
            time.sleep(moment.delay)
        ends = fault.strike(scene)
        begun, patience = time.monotonic(), scene.course.patience * fault.slower
        try:
            code = scene.command.finish(patience)
        except subprocess.TimeoutExpired:
            self._fell(f"still ran {patience:.0f} s after the strike; it had said:\n{scene.command.text}")
            scene.command.kill()
            return None, patience, ""
        seconds = time.monotonic() - begun
        if left := scene.command.left():
            self._fell(f"left behind: {left}")
        scene.command.kill()
        self._judge(ends, code, scene.command.text)
        return code, seconds, message(scene.command.text)

    def _judge(self, ends: Ends, code: int, text: str) -> None:
        """Check the exit status, and that there is one message.

        There is none where the run went on, or could say nothing any more.
        """
        if code not in (ends.code, ends.or_code):
            self._fell(f"exit status {code} instead of {ends.code}; it said:\n{text}")
            return
        if _TRACEBACK.search(text):
            self._fell(f"a traceback:\n{text}")
            return
        complaint = message(text)
        if code < 0:
            return
        if others := strange(text.removesuffix(complaint), ends.notices):
            self._fell("said besides:\n" + "\n".join(others))
        if code > 0 and not (complaint and re.search(ends.says, complaint)):
            self._fell(f"no message that says {ends.says!r}:\n{text}")
        if code == 0 and complaint:
            self._fell(f"complained:\n{text}")
        if "fault in the program" in complaint:
            self._fell(f"an error that nobody foresaw: {complaint}")

    def _again(self) -> None:
        """The same command, with the server and, where it can, the worker that stay up."""
        self._judge(Ends(0), *command_here(self._words(**self.fault.cluster_afterwards(self.scene))))

    def _compare(self) -> None:
        scene = self.scene
        self.fault.fetch(scene)
        self.fault.compare(scene)
        code, said = command_here(["check", "--warehouse", str(scene.warehouse)])
        if code != 0:
            self._fell(f"pairx check: {said}")
        beside = ("lease/*", "reports/pictures/*.webp")
        known = {
            *finished_files(scene.warehouse),
            *(p for each in beside for p in scene.warehouse.glob(each)),
        }
        others = [p for p in scene.warehouse.rglob("*") if p.is_file() and p not in known]
        if torn := [str(p) for p in others if not (p.name.startswith(".") and p.suffix == ".part")]:
            self._fell(f"files that no reader should see: {torn}")


def message(text: str) -> str:
    """The text from the first line that `pairx` says of its failure; empty where there is none."""
    found = re.search(r"^pairx: .*", text, re.MULTILINE | re.DOTALL)
    return found.group() if found else ""


def strange(text: str, notices: str = "$") -> list[str]:
    """Lines that are none of a good run's, and none of the notices that are expected."""
    return [line for line in text.splitlines() if not (_REPORTED.match(line) or re.match(notices, line))]
