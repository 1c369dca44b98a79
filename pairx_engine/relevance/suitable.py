"""Which presets suit a network: those whose rules serve attention, where it has some."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

from pairx_engine.relevance.precision import FULL
from pairx_engine.relevance.presets import AUTO, PRESETS
from pairx_engine.relevance.reading import Reading
from pairx_engine.relevance.rules.rule_sets import RULE_SETS
from pairx_engine.relevance.trace import Untraceable, trace

_KNOWN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def has_attention(network: nn.Module) -> bool:
    """Whether a network weighs tokens by a softmax, by its forward pass or else by its parts' names."""
    if network not in _KNOWN:
        try:
            _KNOWN[network] = bool(Reading(trace(network, ()), FULL).attending)
        except Untraceable:
            _KNOWN[network] = attention_in(network) is not None
    return _KNOWN[network]


def attention_in(network: nn.Module) -> str | None:
    """The path of a part that weighs tokens, as far as its type's name tells; None without one."""
    for path, module in network.named_modules():
        if type(module).__name__.endswith("Attention"):
            return path
    return None


def preset_for(network: nn.Module, name: str) -> str:
    """The preset of that name; for `AUTO` the default of such networks."""
    if name != AUTO:
        return name
    return "cp" if has_attention(network) else "published"


def presets_for_attention() -> list[str]:
    """Names of the presets whose rules know attention, and read tokens."""
    return [name for name, preset in PRESETS.items() if RULE_SETS.named(preset.rules).form == "gradient"]


def suitable_presets(network: nn.Module) -> list[str]:
    """Names of the presets to try on a network: with attention those that know it, else all that differ."""
    if has_attention(network):
        return presets_for_attention()
    return [name for name, preset in PRESETS.items() if not RULE_SETS.named(preset.rules).attention_alone]
