"""The rules by which a photo chooses its partners."""

from __future__ import annotations

from dataclasses import replace

from pairx_engine.retrieval.rules import PairRule
from schemas.settings import Settings


def pair_rules(settings: Settings) -> dict[str, tuple[PairRule, int]]:
    """The rules by which a photo chooses its partners, with the number for each rule, which may be 0.

    The rules are: nearest of all; nearest of the same name, since a wrong name inside an identity never
    shows in a plain top-k; and nearest of other names, so that pairs of either class are chosen on equal
    terms.
    """
    base = PairRule(settings.same_species, settings.same_viewpoint)
    return {
        "top_k": (base, settings.top_k),
        "same_name": (replace(base, same_name=True), settings.same_name_k),
        "other_name": (replace(base, other_name=True), settings.other_name_k),
    }


def search_rules(settings: Settings) -> dict[str, tuple[PairRule, int]]:
    """The same rules with the numbers that are searched for: enough for pairs and for neighbours."""
    near = settings.neighbours
    return {name: (rule, max(k, near)) for name, (rule, k) in pair_rules(settings).items() if k or near}
