"""A preset with rules of its own, registered from outside.

The tests show what it must be known by, and that its rules are followed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.models._features_fx import register_notrace_module
from torch import nn
from torch.nn import functional

from flows.options import description
from pairx_engine.errors import EngineError
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.presets import PRESETS, Preset, preset_named
from pairx_engine.relevance.rules.conserving import CONSERVING
from pairx_engine.relevance.rules.published import PUBLISHED
from pairx_engine.relevance.rules.rows import RuleSet, of_type, passing
from pairx_engine.relevance.rules.rule_sets import RULE_SETS
from pairx_engine.relevance.starts import STARTS, starts_of
from schemas.errors import SettingsError
from schemas.settings import Settings, load_settings
from tasks.evaluation.candidates import default_candidate, sweep_of
from tasks.job import prepare_job
from tasks.store.warehouse import Warehouse

ROOT = Path(__file__).resolve().parents[2]
CHIP = (6, 5)


class Twice(nn.Module):
    """Multiplies what it is given by itself, which no rule of the package passes relevance through."""

    def forward(self, x):
        return x * x


class Toy(nn.Module):
    """A layer, the toy module, a mean and a linear layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = Twice()
        self.neck = nn.Linear(4, 5, bias=False)

    def forward(self, chips):
        return self.neck(self.twice(self.layer(chips)).mean((2, 3)))


TWICE = RuleSet("twice", (of_type((Twice,), passing), *CONSERVING.rows))
TOY = Preset("toy", "signed_sum", "halves", "twice", about="knows Twice")


def halves(e0, e1):
    """Half of each element's share of the cosine."""
    shares = e0 * e1 / (e0.norm(dim=-1, keepdim=True) * e1.norm(dim=-1, keepdim=True))
    return shares / 2, shares / 2


@pytest.fixture
def toy(monkeypatch):
    """Registers the toy and takes it out again."""
    monkeypatch.setitem(RULE_SETS, "twice", TWICE)
    monkeypatch.setitem(PRESETS, "toy", TOY)
    monkeypatch.setitem(STARTS, "halves", halves)


def network():
    torch.manual_seed(0)
    return Toy().double().eval().requires_grad_(False)


def shares(contributions):
    """What each contribution gets of its sum's relevance.

    It is the share of the positive contributions, or of the negative ones where none is positive.
    """
    used = contributions.clamp(min=0) if (contributions > 0).any() else contributions.clamp(max=0)
    return used / used.sum()


def slow_relevance(net, chip, start):
    """Relevance (4, h, w) of the layer for one start (5,): one output, one channel after another."""
    squares = net.layer(chip[None])[0].square()
    found = torch.zeros_like(squares)
    for relevance, weights in zip(start, net.neck.weight, strict=True):
        of_pooled = relevance * shares(weights * squares.mean((1, 2)))
        found += of_pooled[:, None, None] * squares / squares.sum((1, 2), keepdim=True)
    return found


def slow_map(net, chip, column, row):
    """Pixel relevance (H, W) of one cell of the squares: one channel after another."""
    around = functional.pad(chip, (1, 1, 1, 1))
    found, patch = torch.zeros_like(around), (..., slice(row, row + 3), slice(column, column + 3))
    for relevance, weights in zip(
        net.layer(chip[None])[0, :, row, column].square(), net.layer.weight, strict=True
    ):
        found[patch] += relevance * shares(weights * around[patch])
    return found[:, 1:-1, 1:-1].sum(dim=0).abs()


def test_its_rules_and_its_start_are_followed(toy):
    net, chips = network(), torch.randn(2, 3, *CHIP, dtype=torch.float64)
    explainer = LayerExplainer(net, ["layer", "twice"], "toy")
    assert explainer.path == "fast"
    seen = [explainer.see(chip) for chip in chips]
    starts = starts_of(explainer.preset, *(one.embedding for one in seen))
    cosine = torch.cosine_similarity(seen[0].embedding, seen[1].embedding, dim=0)
    for one, chip, start in zip(seen, chips, starts, strict=True):
        found = explainer.channel_relevance(one, start[None])
        wanted = slow_relevance(net, chip, start)
        for layer in ("layer", "twice"):
            assert torch.allclose(found[layer][0], wanted, atol=1e-12)
            assert float(found[layer].sum()) == pytest.approx(float(cosine) / 2, abs=1e-12)


@pytest.mark.parametrize("cell", [(2, 3), (0, 0), (4, 5)])
def test_its_row_passes_relevance_to_the_pixels_too(toy, cell):
    net, chip = network(), torch.randn(3, *CHIP, dtype=torch.float64)
    (found,) = LayerExplainer(net, ["twice"], "toy").pixel_maps(chip, "twice", [cell])
    assert torch.allclose(found, slow_map(net, chip, *cell), atol=1e-12)
    assert float(found.sum()) > 0


def test_without_its_row_the_network_has_no_rule(toy):
    with pytest.raises(
        EngineError, match="preset conserving has no rule for mul .*choose published or paper"
    ):
        LayerExplainer(network(), ["layer"], "conserving")


def test_the_general_path_does_not_serve_its_rules(toy):
    with pytest.raises(EngineError, match="preset toy needs the fast path.*choose published or paper"):
        LayerExplainer(network(), ["layer"], "toy", path="general")


@register_notrace_module
class Unread(nn.Module):
    """One step to the trace, whatever is inside."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_a_step_that_hides_the_toy_is_not_differentiated_plainly(toy, monkeypatch):
    net = network()
    net.twice = Unread(net.twice)
    LayerExplainer(net, ["layer"], "published", path="fast")
    monkeypatch.setitem(RULE_SETS, "twice", RuleSet("twice", (of_type((Twice,), passing), *PUBLISHED.rows)))
    with pytest.raises(EngineError, match="an? Unread, holds layers used in unknown ways"):
        LayerExplainer(net, ["layer"], "toy", path="fast")


def test_rules_and_starts_that_nobody_registered_are_refused(monkeypatch):
    monkeypatch.setitem(PRESETS, "lost", Preset("lost", "signed_sum", rules="none"))
    with pytest.raises(EngineError, match="set of rules 'none'; choose one of published, conserving"):
        LayerExplainer(network(), ["layer"], "lost")
    with pytest.raises(EngineError, match="'nowhere'; there are gradient, shares"):
        starts_of(Preset("astray", "signed_sum", "nowhere"), torch.ones(3), torch.ones(3))


def test_a_name_is_taken_once(toy):
    with pytest.raises(EngineError, match="there is a preset 'toy' already"):
        PRESETS.register(TOY)


def test_settings_and_errors_know_it(toy):
    assert load_settings(overrides={"preset": "toy"}).preset == "toy"
    assert "toy (knows Twice)" in description("preset", Settings.model_fields["preset"])
    with pytest.raises(
        SettingsError, match="'auto', 'published', 'paper', 'conserving', 'cp', 'attnlrp' or 'toy'"
    ):
        load_settings(overrides={"preset": "best"})
    with pytest.raises(EngineError, match="published, paper, conserving, cp, attnlrp, toy"):
        preset_named("best")


def test_settings_forget_it():
    with pytest.raises(SettingsError, match="preset = 'toy'"):
        load_settings(overrides={"preset": "toy"})


def test_a_sweep_tries_it(toy, tmp_path):
    job = prepare_job(Warehouse(str(tmp_path)), Settings(preset="toy"))
    assert "toy" in sweep_of(job, ["backbone.blocks.2"]).presets
    assert default_candidate(job.settings, job.layers[0])["preset"] == "toy"


def test_the_command_line_offers_it():
    code = (
        "from pairx_engine.relevance.presets import PRESETS, Preset; "
        "PRESETS.register(Preset('toy', 'signed_sum', about='knows Twice')); from flows.cli.main import main; main()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, "run", "--help"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    )  # fmt: skip
    assert "toy (knows Twice)" in shown.stdout, shown.stderr
