"""Networks whose weights were shuffled, from the embedding down (Adebayo et al. 2018).

An explanation that gives the same map for them tells of the photo, and not of what the network has learned.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from pairx_engine.relevance.locking import exclusive


def shuffled(network: nn.Module, chips: Tensor, share: float, seed: int = 0) -> nn.Module:
    """A copy in which the entries of each of the upper weights are in another order.

    Weights are parameters of two and more dimensions, so that norms and biases keep their scale. The last
    `share` of them is shuffled, at least one; later is what runs later on `chips` (N, 3, H, W). The order
    follows from `seed`.
    """
    changed = copy.deepcopy(network)
    weights = _in_order(changed, chips)
    first = min(len(weights) - 1, len(weights) - round(share * len(weights)))
    with torch.no_grad():
        for i, weight in enumerate(weights[first:], start=first):
            order = np.random.default_rng([seed, i]).permutation(weight.numel())
            weight.copy_(weight.flatten()[torch.from_numpy(order).to(weight.device)].view_as(weight))
    return changed


def _in_order(network: nn.Module, chips: Tensor) -> list[nn.Parameter]:
    """The network's weights in the order in which their modules first run; unused ones are left out."""
    found: dict[int, nn.Parameter] = {}

    def note(module: nn.Module, *_: object) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1:
                found.setdefault(id(parameter), parameter)

    handles = [module.register_forward_pre_hook(note) for module in network.modules()]
    try:
        with exclusive(network), torch.no_grad():
            network(chips)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())
