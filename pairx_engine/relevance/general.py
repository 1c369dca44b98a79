"""The general path: zennit's hooks on the network itself.

It serves networks that the fast path cannot read. It runs every layer's modified forward again in each
backward pass, so it is several times slower, and threads take turns. It offers only the presets by the rules
`published`, which zennit has (`pairx_engine.relevance.presets.GENERAL`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pairx_engine.errors import EngineError
from pairx_engine.relevance.fast import PullAbove, PullBelow
from pairx_engine.relevance.hooks import lrp_rules
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.window import Window, move, whole


class _LayerReached(Exception):
    """Leaves a forward pass once the wanted layer has run."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def _for_each(starts: Tensor, chips: Tensor) -> Tensor:
    """The chip (N, 3, H, W) of each start, those of the first chip first."""
    each = chips[:, None].expand(-1, len(starts) // len(chips), -1, -1, -1)
    return each.flatten(0, 1)


class GeneralPath:
    """Forward passes and relevances of one network at some layers, by gradients under zennit's rules.

    The network is left unchanged after every call. Layers are checked when a chip first runs.
    """

    stale = False

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        self.network = network
        self.layers = {name: network.get_submodule(name) for name in layers}

    def forward(self, chip: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Embeddings (N, D) and features (N, C, h, w) by layer of chips (N, 3, H, W), without gradients."""
        features: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor) -> None:
            # A copy, since many networks go on to overwrite a layer's output in place.
            features[name] = output.clone() if isinstance(output, Tensor) else output

        with exclusive(self.network), torch.no_grad(), self._watch(self.layers, keep):
            embedding = self.network(chip)
        return embedding, features

    def record_above(self, chip: Tensor, features: dict[str, Tensor]) -> PullAbove:
        """A pull that runs the chip forward each time."""

        def pull(starts: Tensor) -> dict[str, Tensor]:
            return self._relevance(_for_each(starts, chip), starts)

        return pull

    def record_below(self, chip: Tensor, layer: str) -> tuple[Tensor, PullBelow]:
        """The layer's features (N, C, h, w), and a pull that runs the chip forward each time."""
        with exclusive(self.network), torch.no_grad():
            features = self._features_at(layer, chip)

        def pull(layer: str, starts: Tensor, held: Window | None) -> Tensor:
            with lrp_rules(self.network), torch.enable_grad():
                pixels = _for_each(starts, chip.detach()).clone().requires_grad_()
                reached = self._features_at(layer, pixels)
                given = starts if held is None else move(starts, held, whole(reached))
                (gradient,) = torch.autograd.grad(reached, pixels, given)
            return gradient

        return features, pull

    def _relevance(self, chips: Tensor, starts: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}

        def branch_off(name: str, output: Tensor) -> Tensor:
            # A copy is kept, since a layer that hands on its input gives a tensor that others may read too.
            kept = output.clone() if output.requires_grad else output.detach().clone().requires_grad_()
            features[name] = kept
            # Another copy goes on: the network may overwrite it, and what is differentiated must stay.
            return kept.clone()

        with lrp_rules(self.network), torch.enable_grad(), self._watch(self.layers, branch_off):
            embeddings = self.network(chips)
            if embeddings.shape != starts.shape:
                raise EngineError(
                    f"starts have shape {tuple(starts.shape)}, embeddings {tuple(embeddings.shape)}"
                )
            wanted = [features[name] for name in self.layers]
            if not embeddings.requires_grad:
                raise EngineError(
                    f"the embedding does not depend on {', '.join(self.layers)}; choose other layers"
                )
            relevances = torch.autograd.grad(embeddings, wanted, starts, allow_unused=True)
        unused = [name for name, r in zip(self.layers, relevances, strict=True) if r is None]
        if unused:
            raise EngineError(f"the embedding does not depend on {', '.join(unused)}; choose other layers")
        return dict(zip(self.layers, relevances, strict=True))

    def _features_at(self, layer: str, pixels: Tensor) -> Tensor:
        def stop(name: str, output: Tensor) -> None:
            raise _LayerReached(output)

        try:
            with self._watch((layer,), stop):
                self.network(pixels)
        except _LayerReached as reached:
            return reached.features
        raise AssertionError("watching a layer ends by reaching it or by an error")

    @contextmanager
    def _watch(
        self, layers: Sequence[str] | dict[str, nn.Module], seen: Callable[[str, Tensor], Tensor | None]
    ) -> Iterator[None]:
        """Call `seen(name, output)` when a layer has run; a tensor that it returns replaces the output."""
        done: set[str] = set()

        def hook_of(name: str) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
            def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
                if name in done:
                    raise EngineError(
                        f"layer {name!r} runs more than once in a forward pass; choose a layer that runs once"
                    )
                done.add(name)
                return seen(name, output)

            return hook

        handles = []
        try:
            for name in layers:
                handles.append(self.layers[name].register_forward_hook(hook_of(name)))  # noqa: PERF401
            yield
            missing = [name for name in layers if name not in done]
            if missing:
                raise EngineError(
                    f"layer {', '.join(missing)} takes no part in the forward pass; choose another"
                )
        finally:
            for handle in handles:
                handle.remove()
