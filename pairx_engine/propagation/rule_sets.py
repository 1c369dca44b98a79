"""The sets of rules that presets propagate by. A new one is an entry here, or registered from anywhere."""

from __future__ import annotations

from pairx_engine.propagation.conserving import CONSERVING
from pairx_engine.propagation.published import PUBLISHED
from pairx_engine.registry import Registry

RULE_SETS = Registry("set of rules", [PUBLISHED, CONSERVING])
