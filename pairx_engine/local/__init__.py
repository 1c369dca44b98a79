"""Local matchers behind one seam: evidence, independent of the model, that two photos show one surface."""

from pairx_engine.local.features import LocalFeatures, LocalMatcher, MissingWeightsError
from pairx_engine.local.registry import LOCAL_MATCHERS, load_local_matcher

__all__ = ["LOCAL_MATCHERS", "LocalFeatures", "LocalMatcher", "MissingWeightsError", "load_local_matcher"]
