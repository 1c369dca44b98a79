"""What settings may name: enters the members of the engine's registries.

The module of settings may not import the engine.
"""

from __future__ import annotations

from pairx_engine.local.registry import LOCAL_MATCHERS
from pairx_engine.relevance.presets import PRESETS
from schemas.settings import OFFERS

OFFERS["preset"] = PRESETS
OFFERS["matcher"] = LOCAL_MATCHERS
