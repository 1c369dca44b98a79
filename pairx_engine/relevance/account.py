"""Where relevance ends: in the pixels, and in what the network adds of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.rules.modified_gradients import BIASES
from pairx_engine.relevance.rules.rule_sets import RULE_SETS
from pairx_engine.relevance.seen import Seen


def accounts(explainer: LayerExplainer) -> bool:
    """Whether `account` can say where all relevance ends."""
    rules = RULE_SETS.named(explainer.preset.rules)
    return explainer.path == "fast" and not explainer.tuning.graphs and rules.accounts


def account(explainer: LayerExplainer, seen: Seen, starts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Relevance of the pixels (P, 3, H, W) from starts (P, D), and what ends elsewhere (P,) by kind.

    All of it together sums to the start. The chip must have been seen with `keep`. Raises `EngineError` where
    `accounts` is false.
    """
    if not accounts(explainer) or seen.kept is None or seen.kept.pulls.through is None:
        raise EngineError(f"preset {explainer.preset.name} cannot account for relevance, or nothing was kept")
    count = len(starts)
    every = starts.new_zeros((seen.kept.photos, *starts.shape))
    every[seen.place] = starts
    ledger: dict[str, Tensor] = {}
    pixels = seen.kept.pulls.through(every.flatten(0, 1), ledger)
    if RULE_SETS.named(explainer.preset.rules).form == "relevance" and ledger:
        # There, each step has an entry of its own, and keeps what its biases make of nothing.
        ledger = {BIASES: torch.stack(list(ledger.values())).sum(dim=0)}
    mine = slice(seen.place * count, (seen.place + 1) * count)
    elsewhere = {kind: kept[mine] for kind, kept in ledger.items()}
    return pixels[mine].to(seen.chip.dtype), {kind: kept for kind, kept in elsewhere.items() if kept.any()}
