"""What the published PAIR-X code computed on four pairs.

Embeddings, relevances, matches and pixel maps must agree.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pairx_engine.models import load_model
from pairx_engine.pair.explain import explain_pair

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
GOLDENS = sorted((SHARED / "goldens").glob("*.npz"))
TOLERANCE = 1e-4
"""Share of the array's maximum; float32 gives about 1e-6 where operations come in another order."""

pytestmark = pytest.mark.skipif(not GOLDENS, reason="the goldens are not beside the project")


@cache
def explained(path, preset="published", maps=10):
    golden, about = dict(np.load(path)), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    model = load_model(SHARED / "models" / about["model"])
    assert model.chip.size == (about["size"], about["size"])
    assert (list(model.chip.mean), list(model.chip.std)) == (about["mean"], about["std"])
    return golden, explain_pair(model, golden["chip0"], golden["chip1"], about["layer"], preset, maps)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_every_array_agrees_with_the_published_code(path):
    golden, found = explained(path)
    arrays = found.arrays()
    assert arrays.keys() == golden.keys()
    for name, wanted in golden.items():
        assert arrays[name].shape == wanted.shape, name
        assert arrays[name].dtype == wanted.dtype, name
        if wanted.dtype.kind in "iu":
            np.testing.assert_array_equal(arrays[name], wanted, err_msg=name)
        else:
            limit = TOLERANCE * np.abs(wanted).max()
            np.testing.assert_allclose(arrays[name], wanted, rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_the_paper_preset_multiplies_signed_sums(path):
    golden, found = explained(path, "paper", 0)
    signed = golden["relevance_signed_sum0"], golden["relevance_signed_sum1"]
    (c0, r0), (c1, r1) = found.finding.sides[0].cells.T, found.finding.sides[1].cells.T
    wanted = signed[0][r0, c0].astype(float) * signed[1][r1, c1]
    np.testing.assert_allclose(found.finding.relevance, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())
    assert {*map(tuple, found.finding.sides[0].cells.tolist())} == {
        *map(tuple, golden["match_cell0"].tolist())
    }
