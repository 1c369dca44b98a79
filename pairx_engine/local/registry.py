"""Local matchers by name."""

from __future__ import annotations

from pathlib import Path

from pairx_engine.local.features import DEFAULT_KEYPOINTS, LocalMatcher
from pairx_engine.local.sift import SiftMatcher

LOCAL_MATCHERS = ("sift", "aliked+lightglue", "disk+lightglue", "xfeat+lighterglue", "superpoint+lightglue")


def load_local_matcher(
    name: str, weights: Path | None = None, device: str = "cpu", max_keypoints: int = DEFAULT_KEYPOINTS
) -> LocalMatcher:
    """Load a local matcher, one of `LOCAL_MATCHERS`.

    `weights` is the folder with its safetensors files (`sift` needs none; `local.weights.FILES` lists the
    names), `device` where its networks run (`sift` runs on the CPU). Raises ValueError for an unknown name,
    `MissingWeightsError` (a FileNotFoundError) for an absent file, `ModelError` for one that does not fit.
    Nothing is downloaded.
    """
    if name not in LOCAL_MATCHERS:
        raise ValueError(f"no local matcher is called {name!r}; there are {', '.join(LOCAL_MATCHERS)}")
    if name == "sift":
        return SiftMatcher(max_keypoints)
    # torch and kornia take seconds to import; SIFT alone must not wait for them.
    from pairx_engine.local.lightglue import LightGlueMatcher

    return LightGlueMatcher(name, weights, device, max_keypoints)
