"""The shape of the project: what lies where, who may import whom, and that everything public says what it is."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pairx_engine", "schemas", "tasks", "flows")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOREIGN_TO_THE_MATHEMATICS = {
    "prefect",
    "prefect_dask",
    "dask",
    "distributed",
    "dask_cuda",
    "duckdb",
    "pyarrow",
    "fsspec",
}
MAY_IMPORT = {
    "pairx_engine": set(),
    "schemas": set(),
    "tasks": {"pairx_engine", "schemas"},
    "flows": {"pairx_engine", "schemas", "tasks"},
}
"""Which of our packages each of them may import, besides itself."""
MUST_NOT_IMPORT = {
    "pairx_engine": FOREIGN_TO_THE_MATHEMATICS,
    "schemas": {"torch", "timm", "zennit", "kornia", "prefect", "dask", "distributed"},
    "tasks": {"prefect", "prefect_dask", "dask", "distributed", "dask_cuda"},
    "flows": set(),
}
TOP_LEVEL = {*PACKAGES, "tests", "deploy", "pyproject.toml", "README.md", "LICENSE", ".gitignore", ".ci"}
LONGEST_MODULE = 400


def named(path):
    return str(path.relative_to(ROOT))


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path):
    """Top-level names of everything a module imports, also inside functions and for type checking only."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else str(node.module).split(".")[0]


def test_there_are_modules_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)
    assert "torch" in set(imports(ROOT / "pairx_engine" / "relevance.py"))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_packages_import_only_what_they_may(path):
    package = path.relative_to(ROOT).parts[0]
    found = set(imports(path))
    assert "" not in found, "imports are absolute, so that a reader sees where from"
    ours = found & {*PACKAGES, "tests", "deploy"}
    assert ours <= MAY_IMPORT[package] | {package}
    assert not found & MUST_NOT_IMPORT[package]


def test_whoever_reads_settings_knows_what_they_may_name():
    readers = {path for path in MODULES if "load_settings" in path.read_text(encoding="utf-8")}
    for path in readers - {ROOT / "schemas" / "settings.py"}:
        assert "tasks" in {path.relative_to(ROOT).parts[0], *imports(path)}, path


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_modules_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


def public(node, where=""):
    """Public classes, functions and methods of a module or class, with their dotted names."""
    for child in node.body:
        if isinstance(
            child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and not child.name.startswith("_"):
            yield f"{where}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{where}{child.name}.")


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_everything_public_has_a_docstring(path):
    module = tree(path)
    assert ast.get_docstring(module), "the module says in a sentence what it is"
    bare = [name for name, node in public(module) if not ast.get_docstring(node)]
    assert not bare


@pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None,
    reason="needs a checkout and git to tell own from foreign",
)
def test_the_top_level_holds_six_folders_and_what_tools_demand():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert {line.split("/")[0] for line in listed.stdout.splitlines()} <= TOP_LEVEL


def test_tests_mirror_the_tree():
    folders = {p.relative_to(ROOT / "tests").parts[0] for p in (ROOT / "tests").rglob("test_*.py")}
    assert folders <= {*PACKAGES, "benchmarks", "deploy", "gpu", "seams", Path(__file__).name}
    for package in ("pairx_engine", "schemas", "tasks"):
        assert list((ROOT / "tests" / package).glob("test_*.py")), package


def test_what_is_installed_are_the_four_packages_and_the_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == [f"{p}*" for p in sorted(PACKAGES)]
    module, _, function = project["project"]["scripts"]["pairx"].partition(":")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert function in dict(public(tree(path)))


@pytest.mark.parametrize("module", ["flows.cli", "flows.commands"])
def test_the_command_line_starts_without_the_heavy_libraries(module):
    heavy = ["torch", "timm", "kornia", "cv2", "prefect", "distributed", "matplotlib"]
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
