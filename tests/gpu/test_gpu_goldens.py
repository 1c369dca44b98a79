"""A GPU computes the CPU's numbers, within what `tests.devices` allows.

What it allows is told from what it does not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.cases import SHARED
from tests.devices import double_tolerance, tolerance, unexplained_matches
from tests.gpu.goldens import (
    FAMILY_PRESETS,
    PRECISIONS,
    PRESETS,
    family_errors,
    golden_on,
    goldens_in,
    single_is_exact,
)
from tests.pairx_engine.test_families import FAMILIES

GOLDENS = goldens_in(SHARED)
needs_goldens = pytest.mark.skipif(not GOLDENS, reason="the goldens are not beside the project")


@needs_goldens
@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_goldens_on_a_gpu_agree_with_the_cpu_and_the_published_code(
    cuda: str, path: Path, preset: str, precision: str
) -> None:
    found = golden_on(cuda, path, preset, precision)
    assert found.beyond(tolerance(cuda, precision)) == [], found


@pytest.mark.gpu
@pytest.mark.parametrize("preset", FAMILY_PRESETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families_on_a_gpu_agree_with_the_cpu(cuda: str, family: str, preset: str) -> None:
    errors = family_errors(cuda, family, preset, ("float32", "bfloat16"))
    assert errors["double"] <= double_tolerance(cuda, family)
    assert single_is_exact(errors, cuda), errors
    assert np.isfinite(errors["bfloat16"])


@needs_goldens
@pytest.mark.parametrize(("preset", "precision"), [("published", "float32"), ("conserving", "bfloat16")])
def test_goldens_on_a_cpu_are_within_tolerance(preset: str, precision: str) -> None:
    found = golden_on("cpu", GOLDENS[0], preset, precision)
    assert found.beyond(tolerance("cpu", precision)) == [], found
    assert (found.published is None) == (preset == "conserving")
    assert (found.agreement.relevance_error == 0) == (precision == "float32")


@needs_goldens
def test_what_is_beyond_tolerance_is_named() -> None:
    right = golden_on("cpu", GOLDENS[0], "published", "float32")
    off = replace(right.agreement, relevance_error=1e-3, map_error=float("nan"), rank=(1, 0.5))
    wrong = replace(right, agreement=off, unexplained=1, published=1e-2)
    assert wrong.beyond(tolerance("cuda", "float32")) == [
        "relevance", "pixel maps", "rank correlation", "matches", "published relevance",
    ]  # fmt: skip
    assert replace(right, embedding=1.0).beyond(tolerance("cuda", "bfloat16")) == ["embedding"]


def test_single_precision_may_err_as_the_cpu_does_where_a_network_amplifies_rounding() -> None:
    assert single_is_exact({"float32": 9e-5, "cpu": 1e-6}, "cuda")
    assert single_is_exact({"float32": 4e-3, "cpu": 1e-3}, "cuda")
    assert not single_is_exact({"float32": 2e-3, "cpu": 1e-4}, "cuda")
    assert not single_is_exact({"float32": 9e-5, "cpu": 1e-6}, "cpu")
    assert not single_is_exact({"float32": float("nan"), "cpu": 1e-3}, "cuda")


def test_shorter_formats_are_allowed_more_than_longer_ones() -> None:
    limits = [tolerance("cuda", name).relevance for name in ("float32", "float16", "bfloat16")]
    assert limits == sorted(limits)
    assert tolerance("cpu", "float32").relevance == 1e-5
    assert tolerance("cuda", "float32").relevance == 1e-4


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps of one row and one channel: cell 0 lies all but midway between 0 and 1 of the other map."""
    return torch.tensor([[[0.0, 10.0]]]), torch.tensor([[[-1.0, 1.00001, 10.0]]])


def cells(*columns: int) -> np.ndarray:
    return np.array([(column, 0) for column in columns], dtype=np.int64).reshape(-1, 2)


def test_only_near_ties_excuse_another_match(maps: tuple[torch.Tensor, torch.Tensor]) -> None:
    wanted = cells(0, 1), cells(0, 2)
    assert unexplained_matches(*maps, wanted, wanted, ties=0) == 0
    tied = cells(0, 1), cells(1, 2)
    assert unexplained_matches(*maps, tied, wanted, ties=1e-4) == 0
    assert unexplained_matches(*maps, tied, wanted, ties=1e-6) == 2
    far = cells(0, 1), cells(2, 2)
    assert unexplained_matches(*maps, far, wanted, ties=1e-4) == 1
    lost = cells(0), cells(0)
    assert unexplained_matches(*maps, lost, wanted, ties=1e-4) == 1
