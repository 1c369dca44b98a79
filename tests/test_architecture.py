"""The project's shape: what lies where, who may import whom, and that public things say what they are."""

from __future__ import annotations

import ast
import shutil
import subprocess
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
    "pairx_engine": (),
    "schemas": ("pairx_engine.errors",),
    "tasks": ("pairx_engine", "schemas"),
    "flows": ("pairx_engine", "schemas", "tasks"),
}
"""Our packages, or single modules of them, that each package may import besides itself.

All arrows point down.
"""
MUST_NOT_IMPORT = {
    "pairx_engine": FOREIGN_TO_THE_MATHEMATICS,
    "schemas": {"torch", "timm", "zennit", "kornia", "prefect", "dask", "distributed"},
    "tasks": {"prefect", "prefect_dask", "dask", "distributed", "dask_cuda"},
    "flows": set(),
}
ROOMS = {
    "pairx_engine": (
        *(
            "errors",
            "registry",
            "device",
            "photo",
            "model_files",
            "models",
            "retrieval",
            "relevance",
            "local",
            "pair",
            "copies",
        ),
        *("explanations", "faithfulness", "figure", "judgement", "evaluation"),
        *("explained_pair", "engine", "comparison", "toy"),
    ),
    "schemas": (
        *(
            "errors",
            "failures",
            "foreign_text",
            "thresholds",
            "paths",
            "storage_errors",
            "storage",
            "setting",
            "settings",
        ),
        *(
            "evaluate_options",
            "stored_settings",
            "stages",
            "sql",
            "catalogue",
            "tables",
            "fingerprints",
            "views",
        ),
    ),
    "tasks": (
        *(
            "offers",
            "costs",
            "memory",
            "pairs",
            "pair_order",
            "finding_rows",
            "store",
            "gallery",
            "job",
            "photo_files",
            "who",
        ),
        *(
            "keypoints",
            "vectors",
            "shards",
            "retrieval",
            "sql",
            "pages",
            "reviews",
            "runs",
            "check",
            "stages",
            "evaluation",
        ),
    ),
    "flows": (
        *(
            "terminal",
            "log_format",
            "messages",
            "api",
            "clusters",
            "work",
            "options",
            "night",
            "nightly",
            "evaluation",
            "inherited",
            "two_photos",
            "notebook",
            "demo",
            "commands",
            "review",
            "cli",
        ),
    ),
}
"""Folders and single modules of each package: a room imports only those before it."""
TOYS = {"pairx_engine.toy": ("flows.demo.catalogue",)}
"""What only a demonstration needs, and who may import it."""
HEAVY = {"torch", "timm", "kornia", "zennit", "cv2", "prefect", "distributed", "dask", "matplotlib"}
"""What the command line must start without."""
TOP_LEVEL = {*PACKAGES, "tests", "deploy", "pyproject.toml", "README.md", "LICENSE", ".gitignore", ".ci"}
LONGEST_MODULE = 400


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module(path):
    """The dotted name of a file; that of its folder for an `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module(path): path for path in MODULES}


def statements(node, at_start):
    """All statements below a node; with `at_start` only those that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if at_start and (
            isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        ):
            continue
        yield child
        yield from statements(child, at_start)


@cache
def imports(name, at_start=False):
    """Dotted names of what a module imports, also inside functions and for type checking.

    With `at_start`, only of what is imported when the module itself is.
    """
    found = set()
    for node in statements(tree(PATHS[name]), at_start):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: imports are absolute, so that a reader sees where from"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & PATHS.keys()) | ({node.module} if inner - PATHS.keys() else set())
    return frozenset(found - {name})


def within(name, places):
    return any(name == place or name.startswith(f"{place}.") for place in places)


def cycle(graph):
    """Some nodes that reach each other, or nothing."""
    done = set()

    def visit(node, way):
        if node in way:
            return way[way.index(node) :]
        if node in done:
            return []
        done.add(node)
        return next(filter(None, (visit(n, [*way, node]) for n in sorted(graph.get(node, ())))), [])

    return next(filter(None, (visit(node, []) for node in sorted(graph))), [])


def test_there_are_modules_to_look_at():
    assert {name.split(".")[0] for name in PATHS} == set(PACKAGES)
    assert "torch" in imports("pairx_engine.relevance.explainer")
    assert "tasks.store.warehouse" in imports("flows.commands.start") - imports(
        "flows.commands.start", at_start=True
    )
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package):
    for name in PATHS:
        if within(name, [package]):
            found = imports(name)
            ours = {n for n in found if within(n, [*PACKAGES, "tests", "deploy"])}
            assert not {n for n in ours if not within(n, [package, *MAY_IMPORT[package]])}, name
            assert not {n.split(".")[0] for n in found} & MUST_NOT_IMPORT[package], name


def test_whoever_reads_settings_knows_what_they_may_name():
    for name, path in PATHS.items():
        if name != "schemas.settings" and "load_settings" in path.read_text(encoding="utf-8"):
            assert name.startswith("tasks.") or any(within(n, ["tasks"]) for n in imports(name)), name


def room(name):
    """A folder of a package, or a single module at its top."""
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_have_an_order(package):
    order = [f"{package}.{name}" for name in ROOMS[package]]
    inside = [name for name in PATHS if name.startswith(f"{package}.")]
    assert {room(name) for name in inside} == set(order)
    for name in inside:
        before = set(order[: order.index(room(name)) + 1])
        assert {n for n in imports(name) if n.startswith(f"{package}.") and room(n) not in before} == set(), (
            name
        )


def test_what_schemas_take_from_the_engine_comes_through_one_module():
    found = {name for name in PATHS if within(name, ["schemas"]) and "pairx_engine.errors" in imports(name)}
    assert found == {"schemas.errors"}


def test_stages_do_not_know_each_other():
    inside = [name for name in PATHS if within(name, ["tasks.stages"])]
    stages = {name for name in inside if "= Stage.of(" in PATHS[name].read_text(encoding="utf-8")}
    assert {f"tasks.stages.{name}" for name in ("ingest", "embed", "score", "draw")} < stages
    assert {name: found for name in stages if (found := imports(name) & (stages - {name}))} == {}


def test_pages_know_values():
    for name in PATHS:
        if within(name, ["tasks.pages"]):
            assert not {n.split(".")[0] for n in imports(name)} & {"duckdb", "pyarrow", "fsspec"}, name


def test_toys_are_for_the_demonstration():
    for toy, users in TOYS.items():
        found = {
            name for name in PATHS if any(within(n, [toy]) for n in imports(name)) and not within(name, [toy])
        }
        assert found == set(users)


def test_no_modules_import_each_other():
    assert cycle({name: imports(name) & PATHS.keys() for name in PATHS}) == []


@pytest.mark.parametrize(
    ("start", "heavy"), [("flows.cli.main", HEAVY | {"pydantic"}), ("flows.commands.run", HEAVY)]
)
def test_the_command_line_starts_without_the_heavy_libraries(start, heavy):
    reached, left = set(), {start}
    while left:
        left |= {
            n.rpartition(".")[0] for n in left
        } & PATHS.keys()  # a package's own module runs before its parts
        reached |= left
        left = {m for n in left for m in imports(n, at_start=True) if m in PATHS} - reached
    loaded = {m.split(".")[0] for n in reached for m in imports(n, at_start=True)}
    assert loaded & heavy == set()
    assert {"__future__", "pathlib"} < loaded


def test_modules_stay_short():
    assert [n for n in PATHS if len(PATHS[n].read_text(encoding="utf-8").splitlines()) > LONGEST_MODULE] == []


def public(node, where=""):
    """Public classes, functions and methods of a module or class, with their dotted names."""
    for child in node.body:
        if isinstance(
            child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and not child.name.startswith("_"):
            yield f"{where}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{where}{child.name}.")


def test_everything_public_has_a_docstring():
    for name, path in PATHS.items():
        assert ast.get_docstring(tree(path)), f"{name} says in a sentence what it is"
        assert [inner for inner, node in public(tree(path)) if not ast.get_docstring(node)] == [], name


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
    assert folders <= {*PACKAGES, "benchmarks", "deploy", "gpu", "hostile", "seams", Path(__file__).name}
    for package in ("pairx_engine", "schemas", "tasks"):
        assert list((ROOT / "tests" / package).glob("test_*.py")), package


def test_what_is_installed_are_the_four_packages_and_the_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == [f"{p}*" for p in sorted(PACKAGES)]
    place, _, function = project["project"]["scripts"]["pairx"].partition(":")
    assert function in dict(public(tree(PATHS[place])))
