"""Without the mark gpu a test means the CPU, also where there is a GPU.

So do the processes that it starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.selection import means_the_gpu

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import os
import pytest

@pytest.mark.gpu
def test_marked():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"

def test_unmarked():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
"""


@pytest.mark.parametrize(
    ("expression", "seen"),
    [
        ("not slow and not gpu", False),
        ("", False),
        ("slow", False),
        ("not slow", False),
        ("gpu or slow", False),
        ("gpu", True),
        ("gpu and not slow", True),
        ("gpu and slow", True),
        ("strange mark", False),
    ],
)
def test_gpus_are_seen_by_runs_of_gpu_tests_alone(expression: str, seen: bool) -> None:
    assert means_the_gpu(expression) is seen


@pytest.mark.parametrize(("mark", "passed"), [("gpu", 1), ("not gpu", 1)])
def test_a_run_of_pytest_hides_the_gpus_or_leaves_them(tmp_path: Path, mark: str, passed: int) -> None:
    (tmp_path / "test_probe.py").write_text(PROBE)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    finished = subprocess.run(
        [*command, "-p", "tests.conftest", "-p", "no:cacheprovider", "-m", mark, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout
    assert f"{passed} passed, 1 deselected" in finished.stdout
