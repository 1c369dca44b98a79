"""Local matchers by name.

A new matcher is a module of its own and an entry here, or it is registered from anywhere.

Settings, the command line, sweeps and errors offer what `LOCAL_MATCHERS` holds. A module is imported only
when its matcher is loaded: torch, kornia and OpenCV take seconds to import, and neither `--help` nor another
matcher must wait for them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pairx_engine.registry import Registry

if TYPE_CHECKING:
    from pairx_engine.local.features import LocalMatcher

DEFAULT_KEYPOINTS = 1024
"""Keypoints per view.

With twice as many, hardly more cattle pairs get a homography, and LightGlue is four times slower.
"""
Load = Callable[[Path | None, str, int], "LocalMatcher"]
"""A matcher with weights from a folder, on a device, for at most so many keypoints."""


@dataclass(frozen=True)
class Listed:
    """A local matcher that can be loaded.

    `needs_weights` says whether the user must bring weights, `about` what their licence is.
    """

    name: str
    about: str
    load: Load
    needs_weights: bool = True


def _of(module: str) -> Load:
    def load(folder: Path | None, device: str, max_keypoints: int) -> LocalMatcher:
        found: Load = importlib.import_module(f"pairx_engine.local.{module}").load
        return found(folder, device, max_keypoints)

    return load


LOCAL_MATCHERS = Registry(
    "local matcher",
    [
        Listed("sift", "needs no weights", _of("sift"), needs_weights=False),
        Listed("aliked+lightglue", "weights under BSD-3-Clause and Apache-2.0", _of("aliked")),
        Listed("disk+lightglue", "weights under Apache-2.0", _of("disk")),
        Listed("xfeat+lighterglue", "weights under Apache-2.0", _of("xfeat")),
        Listed("superpoint+lightglue", "the paper's; weights for research only", _of("superpoint")),
    ],
)


def load_local_matcher(
    name: str, weights: Path | None = None, device: str = "cpu", max_keypoints: int = DEFAULT_KEYPOINTS
) -> LocalMatcher:
    """Load a local matcher, one of `LOCAL_MATCHERS`.

    `weights` is the folder with its safetensors files (each matcher's module lists the names). `device` is
    where its networks run (`sift` runs on the CPU). Raises `EngineError` for an unknown name,
    `MissingWeightsError` (a FileNotFoundError) for an absent file, `ModelError` for a file that does not fit.
    Nothing is downloaded.
    """
    return LOCAL_MATCHERS.named(name).load(weights, device, max_keypoints)
