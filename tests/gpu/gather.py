"""Everything that the check needs on a machine without a network, in one folder to be carried there.

    python -m tests.gpu.gather FOLDER

FOLDER, which must not exist, gets the project's tracked files, goldens, small weights, a few photos, wheels
of what the machine lacks (`tests.gpu.wheels`) and `run.sh`, which makes the wheels importable and starts the
check. Fails when all of it exceeds 60 MB. `run.sh` takes the options of `python -m tests.gpu`.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.cases import SHARED
from tests.gpu.wheels import ROOT, download
from tests.gpu.workload import MINIATURE, spread

LARGEST = 60_000_000
"""Bytes."""
LARGEST_ENGINE = 15_000_000
MODELS = (MINIATURE, "mobilenetv2_100_imagenet")
ANIMALS, PHOTOS = 13, 5
"""How many cows come along, and at most how many photos of each.

They are enough for the largest catalogue and to calibrate batch norms.
"""
RUN = """\
#!/usr/bin/env bash
# Make importable what this machine lacks, then check everything: ./run.sh [options of python -m tests.gpu]
# PYTHON: the interpreter that has torch. OUT: folder for the results. SETS: which sets of wheels (engine
# run); dask-cuda is a set of its own: without it GPUs are served by plain workers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
out=${OUT:-$here/results}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
wheels=()
for set in ${SETS:-engine run}; do
    from=$here/wheels/$set
    if [ -f "$from.tar.xz" ]; then
        "$python" -W ignore -m tarfile -e "$from.tar.xz" "$site/.wheels-$set"
        from=$site/.wheels-$set
    fi
    wheels+=("$from"/*.whl)
done
"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --target "$site/packages" "${wheels[@]}"
export PYTHONPATH="$here/project:$site/packages${PYTHONPATH:+:$PYTHONPATH}"
cd "$here/project"
"$python" -m tests.gpu --out "$out" "$@"
"""


def main(arguments: list[str] | None = None) -> int:
    """Gather, weigh and say what there is."""
    own = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tests.gpu.gather", description=__doc__, formatter_class=own)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of photos, weights and goldens")
    parser.add_argument("--wheels", type=Path, help="wheels of an earlier folder, to be used again")
    parser.add_argument("--without-wheels", action="store_true", help="leave the wheels out")
    chosen = parser.parse_args(arguments)
    folder: Path = chosen.folder
    if folder.exists():
        parser.error(f"{folder} is there already")
    copy_project(folder / "project")
    copy_shared(chosen.shared, folder / "shared")
    if chosen.wheels:
        shutil.copytree(chosen.wheels, folder / "wheels")
    elif not chosen.without_wheels:
        download(folder / "wheels")
    script = folder / "run.sh"
    script.write_text(RUN, encoding="utf-8")
    script.chmod(0o755)
    for part in sorted([folder / "project", folder / "shared", *folder.glob("wheels/*")]):
        print(f"{part.relative_to(folder)}: {size_of(part) / 1e6:.1f} MB")
    total = size_of(folder)
    print(f"all of {folder}: {total / 1e6:.1f} MB")
    too_large = [
        f"{what} exceeds {limit / 1e6:.0f} MB"
        for what, size, limit in (
            ("the folder", total, LARGEST),
            ("wheels/engine", size_of(folder / "wheels" / "engine"), LARGEST_ENGINE),
        )
        if size >= limit
    ]
    print("".join(f"FAILED: {problem}\n" for problem in too_large), end="")
    return int(bool(too_large))


def copy_project(folder: Path) -> None:
    """The tracked files, as they lie here; in a copy without git, all files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        return
    for name in filter(None, listed.stdout.split("\0")):
        _copy(ROOT / name, folder / name)


def copy_shared(shared: Path, folder: Path) -> None:
    """Goldens, small weights, and the photos of a few cows with the rows of their catalogue."""
    for path in sorted((shared / "goldens").iterdir()):
        _copy(path, folder / "goldens" / path.name)
    for model in MODELS:
        for name in ("config.json", "model.safetensors"):
            _copy(shared / "models" / model / name, folder / "models" / model / name)
    cows, there = shared / "data" / "cows", folder / "data" / "cows"
    with (cows / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["identity"], row["path"]))
    animals: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        animals.setdefault(row["identity"], []).append(row)
    chosen = [row for name in list(animals)[:ANIMALS] for row in spread(animals[name], PHOTOS)]
    for row in chosen:
        _copy(cows / row["path"], there / row["path"])
    with (there / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen)


def size_of(folder: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, there: Path) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, there)
    there.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


if __name__ == "__main__":
    sys.exit(main())
