"""What tests of a GPU share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def cuda() -> str:
    """The device's name; tests skip where torch sees none. For tests marked gpu alone."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return "cuda"
