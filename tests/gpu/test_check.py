"""The check works before a GPU is at hand: everything tiny on the CPU.

What goes wrong in a part stays in that part.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gpu import check
from tests.gpu.check import _limit, main
from tests.gpu.findings import Findings, read_findings
from tests.gpu.part import PARTS
from tests.gpu.report import as_json, as_markdown

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {
    "goldens": ["goldens, published, float32", "1 families, conserving, double precision"],
    "profiling": ["recorded forward: operators", "recorded forward: depthwise", "bare forward of one chip, channels_last"],
    "explanations": [
        "full-mobilenet, our engine, float32: peak memory",
        "full-mobilenet, our engine, float32: times the published way",
        "score-mobilenet, published way, float32: per pair",
    ],
    "scoring": ["float32, 1 partners a photo, 1 pairs", "score stage, float32: one process"],
    "embedding": ["embeddings, of the bare forward", "exact neighbours by two rules", "bare half-precision product"],
    "transformers": ["tiny: ways differ", "tiny, vit_tiny_patch16_224, random weights (96 px; photos of OpenCows2020), all with 10 pixel maps a side: ours"],
    "pipeline": ["run, --cluster local --workers 2 on cpu", "views in which two workers differ from one in any bit"],
}  # fmt: skip


QUICK = ["goldens"]
"""What runs with every test run; the others take minutes more, and go with the slow tests."""


@pytest.fixture(scope="module", params=["quick", pytest.param("rest", marks=pytest.mark.slow)])
def checked(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict, str]:
    """What the check prints and writes, in a process of its own without this one's settings."""
    out = tmp_path_factory.mktemp("check")
    parts = QUICK if request.param == "quick" else [name for name in PARTS if name not in QUICK]
    numbers = ",".join(str(list(PARTS).index(name) + 1) for name in parts)
    command = [sys.executable, "-m", "tests.gpu", "--device", "cpu", "--small", "--minutes", "40"]
    command += ["--parts", numbers]
    finished = subprocess.run(
        [*command, "--out", str(out), "--shared", str(shared)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout, json.loads((out / "check.json").read_text()), (out / "check.md").read_text()


def test_every_part_is_ok_and_has_its_figures(checked: tuple[str, dict, str]) -> None:
    _, found, _ = checked
    assert list(found["parts"]) == list(PARTS)
    run = {name: part for name, part in found["parts"].items() if part["state"] != "skipped"}
    assert list(run) in (QUICK, [name for name in PARTS if name not in QUICK])
    for name, part in run.items():
        assert part["state"] == "ok", part
        told = {figure["what"]: figure for figure in part["figures"]}
        for wanted in FIGURES[name]:
            (figure,) = [f for what, f in told.items() if what.startswith(wanted)]
            assert figure["value"] is not None, figure
        assert all(f["met"] for f in part["figures"] if f["met"] is not None), part


def test_a_line_is_printed_after_each_part_and_the_table_at_the_end(checked: tuple[str, dict, str]) -> None:
    printed, found, table = checked
    lines = printed.splitlines()
    asked = [(i, n) for i, n in enumerate(PARTS, 1) if found["parts"][n]["state"] == "ok"]
    assert [line.split(",")[0] for line in lines[: len(asked)]] == [f"{i} {n}: ok" for i, n in asked]
    assert table in printed
    assert found["about"]["asked"] == "cpu, small"
    assert "torch" in found["about"]["libraries"]


def test_unused_time_goes_to_the_parts_that_follow() -> None:
    chosen = list(PARTS)
    left = 540.0
    shares = []
    for name in chosen:
        shares.append(_limit(name, chosen, left))
        left -= shares[-1]
    assert left == pytest.approx(0)
    assert shares == [
        pytest.approx(540 * share / sum(check.SHARES.values())) for share in check.SHARES.values()
    ]
    assert _limit("pipeline", chosen, 300) == 300


BROKEN = {
    "raise": ("raise RuntimeError('the device is gone')", "failed", "RuntimeError: the device is gone"),
    "die": ("import os; os.kill(os.getpid(), 9)", "failed", "ended with status -9"),
    "hang": ("import time; time.sleep(600)", "timed out", "ended after its"),
    "wrong": ("findings.at_most('error', 2.0, 1.0)", "failed", "beyond tolerance: error"),
    "absent": ("import no_such_library", "not available", "no_such_library"),
}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two parts in place of the real ones.

    The test writes the first one's body; the second notes a figure.
    """
    monkeypatch.setattr(check, "PARTS", dict.fromkeys(("broken_part", "sound_part"), ""))
    monkeypatch.setattr(check, "SHARES", {"broken_part": 1, "sound_part": 3})
    monkeypatch.setattr(check, "_machine", lambda device: {})
    monkeypatch.setattr(check, "_COMMAND", [sys.executable, str(tmp_path / "run.py")])
    (tmp_path / "run.py").write_text(
        "import sys, types, tests.gpu.part as part\n"
        "body = open(sys.argv[0].replace('run.py', sys.argv[1])).read()\n"
        "module = types.ModuleType(sys.argv[1]); exec(body, vars(module))\n"
        "sys.modules['tests.gpu.' + sys.argv[1]] = module\n"
        "sys.exit(part.main(*sys.argv[1:]))\n"
    )
    (tmp_path / "sound_part").write_text("def measure(task, findings):\n    findings.figure('sound', 1)\n")
    return tmp_path


def broken(folder: Path, body: str) -> None:
    (folder / "broken_part").write_text(
        f"def measure(task, findings):\n    findings.figure('before', 7)\n    {body}\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
def test_what_goes_wrong_in_a_part_is_told_and_the_rest_goes_on(
    parts: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body, state, told = BROKEN[how]
    broken(parts, body)
    code = main(["--device", "cpu", "--out", str(parts / "out"), "--minutes", "1" if how == "hang" else "5"])
    found = json.loads((parts / "out" / "check.json").read_text())["parts"]
    assert found["broken_part"]["state"] == state
    assert told in " ".join(found["broken_part"]["notes"])
    assert found["broken_part"]["figures"][0]["value"] == 7
    assert found["sound_part"]["state"] == "ok"
    assert found["sound_part"]["figures"][0]["what"] == "sound"
    assert code == int(state != "not available")
    assert f"| **broken_part** | | {state}" in capsys.readouterr().out


def test_an_interrupted_check_tells_what_it_has(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken(parts, f"import os, signal, time; os.kill({os.getpid()}, signal.SIGTERM); time.sleep(600)")
    begun = time.monotonic()
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["--device", "cpu", "--out", str(parts / "out")]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - begun < 120
    found = json.loads((parts / "out" / "check.json").read_text())["parts"]
    assert [figure["value"] for figure in found["broken_part"]["figures"]] == [7]
    assert found["sound_part"]["notes"] == ["interrupted"]
    assert "before" in capsys.readouterr().out


def test_without_time_a_part_is_not_begun(parts: Path) -> None:
    broken(parts, "raise RuntimeError")
    assert main(["--device", "cpu", "--out", str(parts / "out"), "--minutes", "0.01"]) == 0
    found = json.loads((parts / "out" / "check.json").read_text())["parts"]
    assert {part["state"] for part in found.values()} == {"cut short"}


def test_parts_are_chosen_by_number_or_name(parts: Path) -> None:
    broken(parts, "pass")
    assert main(["--device", "cpu", "--out", str(parts / "out"), "--parts", "2"]) == 0
    found = json.loads((parts / "out" / "check.json").read_text())["parts"]
    assert (found["broken_part"]["state"], found["sound_part"]["state"]) == ("skipped", "ok")
    assert main(["--device", "cpu", "--out", str(parts / "out"), "--skip", "sound_part"]) == 0
    found = json.loads((parts / "out" / "check.json").read_text())["parts"]
    assert (found["broken_part"]["state"], found["sound_part"]["state"]) == ("ok", "skipped")
    with pytest.raises(SystemExit):
        main(["--parts", "seven"])


def test_findings_outlive_the_part_and_hold_no_numbers_that_json_lacks(tmp_path: Path) -> None:
    findings = Findings(tmp_path / "part.json")
    findings.aim("speed", 3.0, "≥ 4", False, "pairs/s")
    findings.at_most("error", float("nan"), 1.0)
    kept = read_findings(findings.path)
    assert [f.value for f in kept.figures] == [3.0, None]
    assert kept.state == "failed"
    findings.end()
    assert findings.state == "failed", "NaN is within no tolerance"
    text = as_markdown({}, {"part": (findings, 1.0)})
    assert "3 pairs/s | ≥ 4: MISSED" in text
    assert "WRONG" in text
    assert json.loads(json.dumps(as_json({}, {"part": (findings, 1.0)}), allow_nan=False))


@pytest.mark.gpu
@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs_on_a_gpu(cuda: str, part: str, shared: Path, tmp_path: Path) -> None:
    chosen = ["--device", cuda, "--small", "--parts", part, "--minutes", "5", "--shared", str(shared)]
    code = main([*chosen, "--out", str(tmp_path)])
    found = json.loads((tmp_path / "check.json").read_text())["parts"][part]
    assert (code, found["state"]) == (0, "ok"), found["notes"]
