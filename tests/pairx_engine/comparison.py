"""What an explainer says of a chip beside what the slow way says, and how far apart the two are."""

from dataclasses import dataclass

from torch import Tensor

from pairx_engine.relevance.presets import preset_named, reduce_channels

EXACT, SINGLE = 1e-10, 1e-5
"""Largest errors in double and in single precision, relative to the largest value of the same map."""
CELLS = [(0, 0), (-1, -1), (-1, 0), (1, 1)]
"""(column, row), negative from the right and from below: three corners and one cell off the edge."""


@dataclass(frozen=True)
class Wanted:
    """The right result for each start or cell (P, ...), and the size that its error is measured by (P,).

    The size is the largest number in the result. Where channels or colours are summed it is the largest sum
    of absolute values, since such a sum may cancel to nothing.
    """

    value: Tensor
    size: Tensor

    def error(self, found):
        """Largest relative error of the worst start or cell."""
        assert found.shape == self.value.shape
        assert self.value.isfinite().all()
        assert (self.size > 0).all()
        return float(((found.double() - self.value.double()).abs().flatten(1).amax(dim=1) / self.size).max())


def itself(value):
    return Wanted(value, value.abs().flatten(1).amax(dim=1))


def summed(value, reduction):
    return Wanted(reduce_channels(value, reduction), value.abs().sum(dim=1).flatten(1).amax(dim=1))


def wanted_of(slow, preset):
    """Everything that the slow way says of a chip, under names."""
    wanted = {"embedding": itself(slow.embedding[None])}
    for layer, channels in slow.channels.items():
        wanted[f"features of {layer}"] = itself(slow.features[layer][None])
        wanted[f"channels of {layer}"] = itself(channels)
        wanted[f"relevance of {layer}"] = summed(channels, preset_named(preset).reduction)
        wanted[f"pixels of {layer}"] = summed(slow.cell_pixels[layer], "abs_of_sum")
    return wanted


def found_by(explainer, chip, starts, keep=False):
    """The same from an explainer; `keep` has it record the forward pass as a whole."""
    seen = explainer.see(chip, keep)
    relevance, channels = explainer.relevance(seen, starts), explainer.channel_relevance(seen, starts)
    found = {"embedding": seen.embedding[None]}
    for layer in explainer.layers:
        h, w = seen.features[layer].shape[-2:]
        cells = [(column % w, row % h) for column, row in CELLS]
        found[f"features of {layer}"] = seen.features[layer][None]
        found[f"channels of {layer}"] = channels[layer]
        found[f"relevance of {layer}"] = relevance[layer]
        found[f"pixels of {layer}"] = explainer.pixel_maps(seen, layer, cells)
    return found


def errors_of(found, wanted):
    assert found.keys() == wanted.keys()
    return {name: wanted[name].error(found[name]) for name in wanted}


def beyond(limit, errors):
    return {name: error for name, error in errors.items() if not error <= limit}
