"""What is carried to a machine without a network: what it lacks and the check needs.

Nothing that is too large goes along.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.gpu import gather, wheels
from tests.gpu.wheels import CONSTRAINTS, LOOSE, SETS, TARGET, listed, missing, pack

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def gathered(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gather") / "bundle"
    assert gather.main([str(folder), "--shared", str(shared), "--without-wheels"]) == 0
    return folder


def test_the_list_of_what_the_machine_has_is_read_with_versions() -> None:
    found = listed()
    assert found["torch"] == "2.11.0"
    assert found["pytest"] is None
    assert not {"zennit", "prefect", "duckdb"} & found.keys()
    assert "://" not in TARGET.read_text(encoding="utf-8")


def test_what_is_missing_follows_needs_extras_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "Top": ["middle[fast]>=2", "there", 'other; sys_platform == "win32"', 'old; python_version < "3.12"', "needless"],
        "middle": ["low", 'quick; extra == "fast"', 'never; extra == "slow"'],
        "there": ["hidden", 'more; extra == "plus"'],
    }  # fmt: skip
    monkeypatch.setattr(wheels, "requires", lambda name: {k.lower(): v for k, v in told.items()}.get(name))
    monkeypatch.setattr(wheels, "NEEDLESS", {"needless"})
    assert missing(["Top"], {"there": None}) == {"top", "middle", "low", "quick"}
    assert missing(["Top"], {"there": None, "middle": "1.9"}) == {"top", "middle", "low", "quick"}
    assert missing(["Top"], {"there": None, "middle": "2.0"}) == {"top", "quick"}
    assert missing(["there[plus]"], {"there": None}) == {"more"}


def test_everything_missing_has_a_pinned_version() -> None:
    pinned = listed(CONSTRAINTS)
    names = set().union(*(missing(wanted, listed()) for wanted in SETS.values()))
    assert {"zennit", "duckdb", "prefect", "distributed", "h2", "dask-cuda"} <= names
    assert {name for name in names if not pinned.get(name)} == set(LOOSE)
    assert not {"torch", "numpy", "kornia"} & names


def test_a_packed_set_holds_the_same_wheels(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a-1-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("a/__init__.py", "x = 1\n" * 1000)
        wheel.writestr("a-1.dist-info/RECORD", "")
    packed = pack(folder)
    assert not folder.exists()
    with tarfile.open(packed) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    with zipfile.ZipFile(tmp_path / "out" / "a-1-py3-none-any.whl") as wheel:
        assert wheel.read("a/__init__.py") == b"x = 1\n" * 1000
        assert wheel.testzip() is None


def test_the_folder_has_project_photos_weights_and_goldens(gathered: Path, shared: Path) -> None:
    for name in ("pyproject.toml", "tests/gpu/check.py", "pairx_engine/models/embedded/model.safetensors"):
        assert (gathered / "project" / name).read_bytes() == (ROOT / name).read_bytes()
    there = gathered / "shared"
    assert {p.name for p in (there / "goldens").iterdir()} == {p.name for p in (shared / "goldens").iterdir()}
    with (there / "data" / "cows" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 37, "21 photos to explain and 16 to calibrate"
    assert all((there / "data" / "cows" / row["path"]).is_file() for row in rows)
    assert {p.name for p in (there / "models").iterdir()} == set(gather.MODELS)
    assert gather.size_of(gathered) < 30_000_000


def test_what_is_too_large_fails(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gather, "LARGEST", 1_000_000)
    assert gather.main([str(tmp_path / "b"), "--shared", str(shared), "--without-wheels"]) == 1
    assert "FAILED: the folder exceeds 1 MB" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        gather.main([str(tmp_path / "b"), "--shared", str(shared)])


def test_one_command_installs_the_wheels_and_starts_the_check(gathered: Path, tmp_path: Path) -> None:
    for kind in ("engine", "run"):
        (gathered / "wheels" / kind).mkdir(parents=True)
        (gathered / "wheels" / kind / f"{kind}.whl").touch()
    pack_like = gathered / "wheels" / "run.tar.xz"
    with tarfile.open(pack_like, "w:xz") as tar:
        tar.add(gathered / "wheels" / "run" / "run.whl", "run.whl")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nif [ "$4" = tarfile ]; then exec {sys.executable} "$@"; fi\necho "$PWD $PYTHONPATH: $@"\n'
    )
    python.chmod(0o755)
    told = subprocess.run(
        [str(gathered / "run.sh"), "--device", "cpu"],
        env={**os.environ, "PYTHON": str(python), "OUT": "/results", "PYTHONPATH": ""},
        capture_output=True, text=True, check=True, cwd="/",
    ).stdout.splitlines()  # fmt: skip
    install, check = told
    assert "pip install" in install
    assert all(word in install for word in ("--no-index", "--no-deps", "--target", "/engine.whl", "/run.whl"))
    assert check.startswith(f"{gathered}/project {gathered}/project:")
    assert check.endswith(": -m tests.gpu --out /results --device cpu")
