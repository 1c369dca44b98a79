"""Which packages a machine with a GPU lacks, and their wheels.

There are two sets: the engine's needs, and those of whole runs. What is needed is read from the packages
installed here, in the versions that `deploy/constraints.txt` pins. What the machine has is listed in
`target_packages.txt`. A listed package is brought nevertheless where its version there is known and does not
fit.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(__file__).with_name("target_packages.txt")
CONSTRAINTS = ROOT / "deploy" / "constraints.txt"
SETS = {
    "engine": ["zennit"],
    "run": ["dask[distributed]", "distributed", "duckdb", "fastapi", "fsspec", "prefect", "prefect-dask", "pydantic"],
    "dask-cuda": ["dask-cuda", "rapids-dask-dependency"],
}  # fmt: skip
"""What each set serves. kornia is not among it: only matchers other than SIFT need it."""
LOOSE = {
    "dask-cuda": "dask-cuda>=26.10,<26.11",
    "rapids-dask-dependency": "rapids-dask-dependency>=26.10,<26.11",
}
"""Not pinned: CPUs do not need them.

Everything that these need is in the other sets or on the machine.
"""
NEEDLESS = {"apprise", "docker"}
"""Needs of Prefect that no run imports: notifications and containers. They would not fit."""
PYTHON = "3.12"
_PACKED = 10_000_000
"""Bytes above which a set is packed."""
_MARKERS = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.3",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
_PLATFORMS = ("manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010", "manylinux_2_5", "manylinux1")  # fmt: skip


def listed(path: Path = TARGET) -> dict[str, str | None]:
    """Packages that a list names, with their version where it says one."""
    found: dict[str, str | None] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            name, _, version = text.partition("==")
            found[canonicalize_name(name)] = version or None
    return found


def missing(wanted: Iterable[str], there: Mapping[str, str | None]) -> set[str]:
    """Names of all packages that the wanted ones need and that the machine lacks.

    A version that does not fit counts as lacking. Packages that are not installed here are taken to need
    nothing more.
    """
    found: set[str] = set()
    waiting = [Requirement(text) for text in wanted]
    done: set[tuple[str, frozenset[str], bool]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        held = there.get(name)
        if name in NEEDLESS:
            continue
        present = name in there and (held is None or requirement.specifier.contains(held, prereleases=True))
        if not present:
            found.add(name)
        key = name, frozenset(requirement.extras), present
        if key not in done:
            done.add(key)
            # A package that the machine has comes with its own needs, but perhaps not with an extra's.
            own = [] if present else _needs(name, "")
            waiting += [*own, *(need for extra in requirement.extras for need in _needs(name, extra))]
    return found


def _needs(name: str, extra: str) -> list[Requirement]:
    """What a package needs of itself, or for one of its extras."""
    try:
        told = requires(name) or []
    except PackageNotFoundError:
        return []
    needs = [Requirement(text) for text in told]
    return [need for need in needs if _wanted(need, extra) and not (extra and _wanted(need, ""))]


def _wanted(need: Requirement, extra: str) -> bool:
    return need.marker is None or need.marker.evaluate({**_MARKERS, "extra": extra})


def download(folder: Path) -> None:
    """Fetch the wheels of all sets into folders of their names, and pack large sets."""
    there, pinned = listed(), listed(CONSTRAINTS)
    brought: set[str] = set()
    for kind, wanted in SETS.items():
        names = sorted(missing(wanted, there) - brought)
        brought |= set(names)
        asked = [LOOSE.get(name) or f"{name}=={pinned[name]}" for name in names]
        place = folder / kind
        place.mkdir(parents=True)
        platforms = [word for p in _PLATFORMS for word in ("--platform", f"{p}_x86_64")]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms,
             "--dest", str(place), *asked],
            check=True,
        )  # fmt: skip
        if sum(path.stat().st_size for path in place.iterdir()) > _PACKED:
            pack(place)


def pack(folder: Path) -> Path:
    """Put a folder of wheels into FOLDER.tar.xz in its place.

    Together, and stored plainly, the wheels take a third less.
    """
    packed = folder.with_name(f"{folder.name}.tar.xz")
    # Most of it is machine code; any reader of xz can read a stream that names its filters.
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26}]
    with lzma.open(packed, "wb", filters=filters) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for wheel in sorted(folder.iterdir()):
            plain = wheel.with_suffix(".plain")
            with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(plain, "w", zipfile.ZIP_STORED) as target:
                for item in source.infolist():
                    target.writestr(item, source.read(item), compress_type=zipfile.ZIP_STORED)
            tar.add(plain, wheel.name)
            plain.unlink()
    shutil.rmtree(folder)
    return packed
