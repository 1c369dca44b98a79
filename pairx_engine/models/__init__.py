"""Re-identification models behind one interface.

A model is a network, its chip, its weights' hash and the layer to explain.
"""

from pairx_engine.model_files import EMBEDDED
from pairx_engine.models.load import ReIdModel, load_model
from pairx_engine.models.miewid import build_miewid

__all__ = ["EMBEDDED", "ReIdModel", "build_miewid", "load_model"]
