"""The sets of rules that presets propagate by.

A new set is an entry here, or it is registered from anywhere.
"""

from __future__ import annotations

from pairx_engine.registry import Registry
from pairx_engine.relevance.rules.conserving import CONSERVING
from pairx_engine.relevance.rules.published import PUBLISHED
from pairx_engine.relevance.rules.transformers import ATTNLRP, CP

RULE_SETS = Registry("set of rules", [PUBLISHED, CONSERVING, CP, ATTNLRP])
