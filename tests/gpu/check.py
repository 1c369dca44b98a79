"""All that this project does on a GPU, checked and measured by one command in under nine minutes.

    python -m tests.gpu                             on the CUDA device, all parts
    python -m tests.gpu --parts 2,3 --minutes 5     some of them
    python -m tests.gpu --device cpu --small        everything tiny on the CPU, to see that the check itself works

Every part runs in a process of its own with a time limit. What a part has found by its end, good or bad, is
in OUT/check.json and OUT/check.md, which are written after every part, and the table is printed at the end.
Unused time goes to the parts that follow. Exit status: 0 when every part that could run is ok or was cut
short, else 1; 130 when interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.gpu.findings import Findings, read_findings
from tests.gpu.part import PARTS, Task
from tests.gpu.report import as_json, as_markdown, summary_line

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
SHARES = {
    "goldens": 4,
    "profiling": 3,
    "explanations": 8,
    "scoring": 3,
    "embedding": 2,
    "transformers": 3,
    "pipeline": 4,
}
"""How the time is divided; a part may use what those before it have left."""
_COMMAND = [sys.executable, "-m", "tests.gpu.part"]
_GRACE = 10
"""Seconds that a part is given to end by itself."""
_LEAST = 5
"""A part does not begin with fewer seconds than this."""


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen parts and report."""
    chosen = _arguments(arguments)
    out = chosen.out or Path(tempfile.mkdtemp(prefix="pairx-check-"))
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    about: dict[str, Any] = {"asked": f"{chosen.device}{', small' if chosen.small else ''}"}
    parts: dict[str, tuple[Findings, float]] = {}
    ends = time.time() + 60 * chosen.minutes
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="pairx-check-", ignore_cleanup_errors=True) as scratch:
        try:
            about |= _machine(chosen.device)
        except KeyboardInterrupt:
            interrupted = True
        for number, name in enumerate(PARTS, start=1):
            begun = time.monotonic()
            if name not in chosen.parts or interrupted:
                why = "interrupted" if interrupted else "not asked for"
                found = Findings(out / f"{name}.json", "skipped", [why])
            else:
                limit = _limit(name, chosen.parts, ends - time.time())
                try:
                    found = _run(name, chosen, Path(scratch), out, limit)
                except KeyboardInterrupt:
                    interrupted = True
                    found = read_findings(out / f"{name}.json")
            parts[name] = found, time.monotonic() - begun
            if name in chosen.parts:
                print(summary_line(number, name, *parts[name]), flush=True)
            _write(out, about, parts)
    print(f"\n{as_markdown(about, parts)}\n\nin full: {out}")
    bad = any(found.state in ("failed", "timed out") for found, _ in parts.values())
    return 130 if interrupted else int(bad)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    own = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tests.gpu", description=__doc__, formatter_class=own)
    listed = ", ".join(f"{i} {name}" for i, name in enumerate(PARTS, start=1))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="everything tiny: does the check itself work?")
    parser.add_argument("--parts", help=f"numbers or names, by commas; all by default: {listed}")
    parser.add_argument("--skip", default="", help="the parts to leave out")
    parser.add_argument("--out", type=Path, help="folder for results and logs (a new temporary one)")
    parser.add_argument("--minutes", type=float, default=9, help="for all parts together (9)")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of photos, weights and goldens")
    chosen = parser.parse_args(arguments)
    known = {str(i): name for i, name in enumerate(PARTS, start=1)} | {name: name for name in PARTS}
    named = {what: [n for n in (getattr(chosen, what) or "").split(",") if n] for what in ("parts", "skip")}
    for name in [*named["parts"], *named["skip"]]:
        if name not in known:
            parser.error(f"no part {name!r}; parts are {listed}")
    wanted = [known[n] for n in named["parts"]] or list(PARTS)
    chosen.parts = [
        name for name in PARTS if name in wanted and name not in {known[n] for n in named["skip"]}
    ]
    chosen.shared = chosen.shared.resolve()
    return chosen


def _limit(name: str, chosen: list[str], left: float) -> float:
    """Seconds for a part: its share of what is left for it and those after it."""
    coming = chosen[chosen.index(name) :]
    return left * SHARES[name] / sum(SHARES[other] for other in coming)


def _run(name: str, chosen: argparse.Namespace, scratch: Path, out: Path, limit: float) -> Findings:
    path = out / f"{name}.json"
    path.unlink(missing_ok=True)
    if limit < _LEAST:
        return Findings(path, "cut short", ["no time was left"])
    task = Task(chosen.device, chosen.small, str(chosen.shared), str(scratch), str(path), time.time() + limit)
    told = scratch / f"{name}.task.json"
    task.write(told)
    with (out / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*_COMMAND, name, str(told)],
            cwd=ROOT, env=environment(chosen.device), stdout=log, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    found = read_findings(path)
    if code is None:
        found.state = "timed out"
        found.notes.append(f"ended after its {limit:.0f} s; its figures up to then stand")
    elif code and not found.notes:
        found.notes.append(f"ended with status {code}: {_last_line(out / f'{name}.log')}")
    return found


def environment(device: str) -> dict[str, str]:
    """A part's environment: this checkout, and no GPU where the CPU is meant."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **hidden}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part's process and all that it started: asked first, so that it can stop its own, then killed."""
    for sign, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _machine(device: str) -> dict[str, str]:
    """What the figures depend on.

    A process of its own is asked: the check itself never touches the device.
    """
    code = (
        "import json; from tests.benchmarks.measuring import all_cores, machine; "
        f"print(json.dumps(machine({device!r}, all_cores())))"
    )
    try:
        told = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT, env=environment(device), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        facts: dict[str, str] = json.loads(told.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return {"machine": f"unknown: {type(error).__name__}"}
    return facts


def _write(out: Path, about: dict[str, Any], parts: dict[str, tuple[Findings, float]]) -> None:
    (out / "check.json").write_text(json.dumps(as_json(about, parts), indent=1) + "\n", encoding="utf-8")
    (out / "check.md").write_text(as_markdown(about, parts) + "\n", encoding="utf-8")
