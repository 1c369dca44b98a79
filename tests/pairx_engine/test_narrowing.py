"""Edges of receptive fields that hold almost nothing.

What short formats leave out there, and how little that is.
"""

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pairx_engine.device.tuning import WINDOW_STEP
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.precision import PRECISIONS, Precision
from pairx_engine.relevance.window import Window, whole, without_light_edges

LAYER, SHARE = "blocks.3", 0.05


def naive_light_rows(mass, allowed):
    """How many rows at the top hold no more than `allowed` together, one by one."""
    taken = 0.0
    for n, row in enumerate(mass):
        taken += float(row.sum())
        if taken > allowed:
            return n
    return len(mass)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_light_edges_are_the_most_that_may_go(data):
    h, w = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    steepness = data.draw(st.floats(0, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    distance = np.hypot(*np.ogrid[:h, :w])
    mass = (rng.random((h, w)) * np.exp(-steepness * distance)).astype(np.float32)
    if data.draw(st.booleans()):
        mass = mass[::-1, ::-1]
    share = data.draw(st.sampled_from([0.0, 1e-3, 0.1, 0.5]))
    window = Window(3, 3 + h, 5, 5 + w)
    kept = without_light_edges(mass, window, share)
    assert kept.within(window) == kept
    inside = mass[kept.top - 3 : kept.bottom - 3, kept.left - 5 : kept.right - 5]
    total = float(mass.sum(dtype=np.float64))
    assert total - float(inside.sum(dtype=np.float64)) <= share * total * (1 + 1e-5) + 1e-30
    # And no more stays than has to, but for the rounding of sizes.
    allowed = total * share / 4 * (1 - 1e-5)
    needed = h - naive_light_rows(mass, allowed) - naive_light_rows(mass[::-1], allowed)
    across = w - naive_light_rows(mass.T, allowed) - naive_light_rows(mass.T[::-1], allowed)
    assert kept.size[0] <= min(h, max(needed, 1) + WINDOW_STEP - 1)
    assert kept.size[1] <= min(w, max(across, 1) + WINDOW_STEP - 1)


def test_nothing_and_what_is_no_number_keep_their_window():
    window = Window(0, 6, 0, 8)
    for corner in (np.nan, np.inf, 0.0):
        mass = np.zeros((6, 8), dtype=np.float32)
        mass[0, 0] = corner
        assert without_light_edges(mass, window, 0.5) == window


def test_large_masses_do_not_overflow():
    mass = np.full((8, 8), 3e38, dtype=np.float32)
    assert without_light_edges(mass, Window(0, 8, 0, 8), 1e-3) == Window(0, 8, 0, 8)


@pytest.fixture
def leaving(monkeypatch):
    """Explainers in single precision, which leave out nothing, or up to `SHARE`."""
    monkeypatch.setitem(PRECISIONS, "leaving", Precision("leaving", negligible=SHARE))
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_050", num_classes=0).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.normal_(module.bias, 0.0, 0.5)
    chip = torch.randn(3, 192, 192)
    seen = {
        name: LayerExplainer(network, [LAYER], "conserving", name).see(chip, keep=True)
        for name in ("float32", "leaving")
    }
    start = torch.zeros_like(seen["float32"].features[LAYER])[None]
    start[0, :, 6, 5] = seen["float32"].features[LAYER][:, 6, 5].abs()
    return seen, start


def pulled(seen, start, window):
    below = seen.kept.pulls.below(
        LAYER, start[..., window.top : window.bottom, window.left : window.right], window
    )
    return below.sum(dim=1)


def test_what_is_left_out_is_missing_and_is_less_than_its_share(leaving):
    seen, start = leaving
    one_cell = Window(6, 7, 5, 6)
    exact, found = (pulled(seen[name], start, one_cell)[0] for name in ("float32", "leaving"))
    # Shares of a start that is nowhere negative are nowhere negative: leaving some out adds nothing anywhere.
    assert (exact >= 0).all()
    assert (found <= exact + 1e-5 * exact.max()).all()
    missing = 1 - found.double().sum() / exact.double().sum()
    assert 1e-4 < missing <= SHARE
    assert (found > 0).sum() < 0.9 * (exact > 0).sum()


def test_several_starts_and_whole_maps_are_pulled_in_full(leaving):
    seen, start = leaving
    everything = whole(start)
    several = torch.cat([start, 2 * start])
    for starts, window in ((several, Window(6, 7, 5, 6)), (start, everything)):
        exact, found = (pulled(seen[name], starts, window) for name in ("float32", "leaving"))
        assert torch.equal(exact, found)
