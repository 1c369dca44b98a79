"""Relevance at inner layers and in pixels, from one explainer per network.

All grids are (h, w) of the layer's feature map; cells are (column, row), both counted from 0 at the top left. Chips are
normalised network inputs (3, H, W) on the network's device. A layer's output must be a map (N, C, h, w).

For a given chip the rules are linear in the start relevance. So a chip runs forward once, its ratio terms are kept, and
any number of starts is pulled through them: one per partner above the layer, one per match below it.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pairx_engine.accelerator import out_of_memory
from pairx_engine.errors import EngineError
from pairx_engine.lrp import Preset, Reduction, preset_named, reduce_channels
from pairx_engine.propagation.fast import FastPath, Pulls
from pairx_engine.propagation.general import GeneralPath
from pairx_engine.propagation.precision import precision_named
from pairx_engine.propagation.trace import Untraceable
from pairx_engine.propagation.window import Window, cut

SMALLEST_NORM = 1e-8
CELLS_AT_ONCE, STARTS_AT_ONCE = 4096, 5
"""What a CPU pulls through at once: so many cells of a layer's map, but not more starts. Products with the weights gain from
company up to here; more was no faster when measured, and takes more memory."""
FILLED_BELOW = 512
"""Cells of a map below which groups of starts are filled up to one size. A product's kernel is chosen by its number of rows,
and on small maps another kernel rounds otherwise: a start's numbers must not depend on how many others there are."""
MAPS_AT_ONCE_ON_GPU, STARTS_AT_ONCE_ON_GPU = 8, 64
Item = TypeVar("Item")
Result = TypeVar("Result")
PathChoice = Literal["auto", "fast", "general"]


@dataclass(frozen=True)
class Seen:
    """What a forward pass shows of a chip (3, H, W): its `embedding` (D,) and `features` (C, h, w) by layer.

    `pulls` is the recorded pass, where it was to be kept.
    """

    chip: Tensor
    embedding: Tensor
    features: Mapping[str, Tensor]
    pulls: Pulls | None = None


def cosine_start(embeddings0: Tensor, embeddings1: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the cosine with respect to both embeddings, (..., D) each: PAIR-X's start of the propagation.

    d cos / d e0 = (e1 / |e1| - cos * e0 / |e0|) / |e0|, and the same with 0 and 1 exchanged. Computed in double
    precision, returned in the inputs' type. Norms below 1e-8 count as 1e-8.
    """
    (unit0, norm0), (unit1, norm1) = _unit(embeddings0), _unit(embeddings1)
    cosine = (unit0 * unit1).sum(dim=-1, keepdim=True)
    start0, start1 = (unit1 - cosine * unit0) / norm0, (unit0 - cosine * unit1) / norm1
    return start0.to(embeddings0.dtype), start1.to(embeddings1.dtype)


def cosine_shares(embeddings0: Tensor, embeddings1: Tensor) -> tuple[Tensor, Tensor]:
    """Each element's share of the cosine, e0 * e1 / (|e0| |e1|), (..., D); the same for both. They sum to the cosine.

    Computed in double precision, returned in the inputs' type. Norms below 1e-8 count as 1e-8.
    """
    shares = _unit(embeddings0)[0] * _unit(embeddings1)[0]
    return shares.to(embeddings0.dtype), shares.to(embeddings1.dtype)


def _unit(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    wide = embeddings.double()
    norm = wide.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)
    return wide / norm, norm


def starts_of(preset: Preset, embeddings0: Tensor, embeddings1: Tensor) -> tuple[Tensor, Tensor]:
    """What a preset propagates from both embeddings (..., D): the cosine's gradients or its shares."""
    make = cosine_shares if preset.start == "shares" else cosine_start
    return make(embeddings0, embeddings1)


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The submodule at a dotted path such as ``backbone.blocks.3``; raises `EngineError` with near names."""
    known = {path: module for path, module in network.named_modules() if path}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or [n for n, _ in network.named_children()]
    raise EngineError(f"the network has no layer {name!r}; near names: {', '.join(near)}")


class LayerExplainer:
    """Relevances and pixel maps of one network at some of its layers.

    `layers` are dotted module paths; `preset` names an entry of `PRESETS`, `precision` one of `PRECISIONS`, `reduction` one
    of `REDUCTIONS` to take the place of the preset's own. The fast path never touches the network and serves any number of threads at once; a network that it cannot read takes the general
    path, where threads take turns, and `notice` says why. Both leave the network as they found it. `path` insists on one
    of them. Raises `EngineError` for unknown names, and where preset, precision or path ask for what the network's path
    does not offer.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        preset: str = "published",
        precision: str = "float32",
        path: PathChoice = "auto",
        reduction: str | None = None,
    ) -> None:
        if not layers or isinstance(layers, str):
            raise EngineError("name at least one layer to explain, as a list of dotted module paths")
        self.network = network
        self.preset = preset_named(preset, reduction)
        self.precision = precision_named(precision)
        self.layers = tuple(dict.fromkeys(layers))
        for name in self.layers:
            find_layer(network, name)
        self.notice: str | None = None
        self._choice = path
        self._way = self._general("asked for") if path == "general" else self._fast()

    @property
    def path(self) -> Literal["fast", "general"]:
        """Which path explains this network."""
        return "fast" if isinstance(self._way, FastPath) else "general"

    def see(self, chip: Tensor, keep: bool = False) -> Seen:
        """Embedding and features of a chip (3, H, W), by one forward pass.

        With `keep` the pass is recorded as a whole, for relevances and pixel maps to come; that holds hundreds of
        megabytes for a large model. Without, they run again the part that they need.
        """
        embedding, features, pulls = self._recorded(lambda way: _forward(way, chip[None], keep))
        for name in self.layers:
            _check_output(name, features[name], chip)
        return Seen(chip, embedding[0], {name: features[name][0] for name in self.layers}, pulls)

    def relevance(self, seen: Seen, starts: Tensor) -> dict[str, Tensor]:
        """Relevance of a seen chip for each start relevance of its embedding (P, D): per layer (P, h, w).

        Only the part above the lowest layer runs again, once for all starts. Reduced over channels as `preset.reduction` says.
        """
        return self.relevance_by_reduction(seen, starts, [self.preset.reduction])[self.preset.reduction]

    def relevance_by_reduction(
        self, seen: Seen, starts: Tensor, reductions: Sequence[Reduction]
    ) -> dict[Reduction, dict[str, Tensor]]:
        """As `relevance`, reduced in each of several ways; propagated once, and never all channels held."""
        groups = [
            {(how, name): reduce_channels(channels[name], how) for how in reductions for name in self.layers}
            for channels in self._channels(seen, starts)
        ]
        return {
            how: {name: torch.cat([group[how, name] for group in groups]) for name in self.layers}
            for how in reductions
        }

    def channel_relevance(self, seen: Seen, starts: Tensor) -> dict[str, Tensor]:
        """As `relevance`, but the signed relevance of every channel, per layer (P, C, h, w)."""
        groups = list(self._channels(seen, starts))
        return {name: torch.cat([group[name] for group in groups]) for name in self.layers}

    def pixel_maps(self, given: Tensor | Seen, layer: str, cells: ArrayLike | Tensor) -> Tensor:
        """Pixel relevance of single cells of a chip (3, H, W), seen or not: `cells` (k, 2) as (column, row), to (k, H, W).

        The start is the layer's features with all but one cell set to zero, propagated to the input; the map is
        |sum over RGB|. On the fast path one forward, stopped at the layer, serves all cells. Raises `EngineError` for cells
        outside the grid or an unknown layer.
        """
        if layer not in self.layers:
            raise EngineError(f"layer {layer!r} is not among this explainer's: {', '.join(self.layers)}")
        chip = given.chip if isinstance(given, Seen) else given
        where = torch.as_tensor(cells, dtype=torch.long).reshape(-1, 2).tolist()
        if not where:
            return chip.new_zeros((0, *chip.shape[-2:]))
        if isinstance(given, Seen) and given.pulls:
            features, pull = given.features[layer][None], given.pulls.below
        else:
            features, pull = self._recorded(lambda way: way.record_below(chip[None], layer))
        _check_output(layer, features, chip)
        _check_cells(where, features)

        def maps(group: Sequence[tuple[int, int]], size: int) -> Tensor:
            starts, window = _single_cells(features, group)
            # One after another: a sum over three neighbours in memory is several times as slow.
            colours = pull(layer, starts, window).to(chip.dtype).unbind(dim=1)
            return functools.reduce(torch.add, colours).abs()

        # On a CPU one at a time: each is pulled through its own receptive field only.
        at_once = MAPS_AT_ONCE_ON_GPU if chip.is_cuda else 1
        return torch.cat(list(in_groups(where, at_once, maps)))

    def _channels(self, seen: Seen, starts: Tensor) -> Iterator[dict[str, Tensor]]:
        if starts.ndim != 2 or len(starts) == 0:
            raise EngineError(
                f"starts must be (P, D) with at least one of them, not of shape {tuple(starts.shape)}"
            )
        features = {name: f[None] for name, f in seen.features.items()}
        if seen.pulls:
            pull = seen.pulls.above
        else:
            pull = self._recorded(lambda way: way.record_above(seen.chip[None], features))

        def channels(group: Sequence[Tensor], size: int) -> dict[str, Tensor]:
            found = pull(torch.stack([*group, *[group[-1]] * _filling(len(group), size, seen, self.layers)]))
            return {name: found[name][: len(group)].to(starts.dtype) for name in self.layers}

        return in_groups(list(starts), starts_at_once(seen, self.layers), channels)

    def _recorded(self, record: Callable[[FastPath | GeneralPath], Result]) -> Result:
        try:
            return record(self._current())
        except Untraceable as reason:
            # Some steps show only when they run that they cannot be recorded.
            self._way = self._general(str(reason))
            return record(self._way)

    def _current(self) -> FastPath | GeneralPath:
        if self._way.stale:
            self._way = self._fast()
        return self._way

    def _fast(self) -> FastPath | GeneralPath:
        try:
            return FastPath(self.network, self.layers, self.preset, self.precision)
        except Untraceable as reason:
            return self._general(str(reason))

    def _general(self, reason: str) -> GeneralPath:
        if self._choice == "fast":
            raise EngineError(f"the fast path cannot explain this network: {reason}")
        for what, value, offered in (
            ("preset", self.preset.name, ("published", "paper")),
            ("precision", self.precision.name, ("float32", "tf32")),
        ):
            if value not in offered:
                raise EngineError(
                    f"{what} {value} needs the fast path, which cannot explain this network ({reason}); "
                    f"choose {' or '.join(offered)}"
                )
        if self._choice == "auto":
            self.notice = f"explained by the general path, several times slower: {reason}"
        return GeneralPath(self.network, self.layers)


def _forward(
    way: FastPath | GeneralPath, chip: Tensor, keep: bool
) -> tuple[Tensor, dict[str, Tensor], Pulls | None]:
    if keep and isinstance(way, FastPath):
        return way.record(chip)
    return (*way.forward(chip), None)


def starts_at_once(seen: Seen, layers: Sequence[str]) -> int:
    """Starts pulled together through the part above the layers, by device and by the largest map."""
    if seen.chip.is_cuda:
        return STARTS_AT_ONCE_ON_GPU
    return max(1, min(STARTS_AT_ONCE, CELLS_AT_ONCE // _most_cells(seen, layers)))


def _filling(count: int, size: int, seen: Seen, layers: Sequence[str]) -> int:
    """How many starts are added to a group of `count`, so that groups come in few sizes.

    On a GPU, where groups are large, to the next power of two; on a CPU to the full size, for small maps only.
    """
    if seen.chip.is_cuda:
        return min(size, 1 << (count - 1).bit_length()) - count
    return size - count if _most_cells(seen, layers) < FILLED_BELOW else 0


def _most_cells(seen: Seen, layers: Sequence[str]) -> int:
    return max(seen.features[name].shape[-2] * seen.features[name].shape[-1] for name in layers)


def in_groups(
    items: Sequence[Item], size: int, work: Callable[[Sequence[Item], int], Result]
) -> Iterator[Result]:
    """`work(group, size)` on groups of at most `size` items in order; where memory runs out, the group is halved.

    The smaller size is kept to from then on. Running out with a single item, at size 1, raises torch's own error.
    """
    done = 0
    while done < len(items):
        group = items[done : done + size]
        try:
            result = work(group, size)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if size == 1 or not out_of_memory(error):
                raise
            # Half of what was there, not of what would have had room: a short group may be far below the size.
            size = (len(group) + 1) // 2
            continue
        done += len(group)
        yield result


def _check_output(name: str, output: object, chip: Tensor) -> None:
    if not isinstance(output, Tensor) or output.ndim != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise EngineError(
            f"layer {name!r} gives {shape}, not a map (N, C, h, w); choose a convolutional stage"
        )
    (h, w), (height, width) = output.shape[-2:], chip.shape[-2:]
    if abs(h - w * height / width) > 1 + h / 4:
        # A map has the chip's proportions; with the channels last, one of its sides would be the channels.
        raise EngineError(
            f"layer {name!r} gives {tuple(output.shape)} for a chip of {height} x {width} pixels, which is no map "
            "(N, C, h, w): transformers often have the channels last; choose a convolutional stage"
        )


def _check_cells(cells: Sequence[Sequence[int]], features: Tensor) -> None:
    h, w = features.shape[-2:]
    if any(not (0 <= column < w and 0 <= row < h) for column, row in cells):
        raise EngineError(f"some cells lie outside the layer's grid of {w} columns and {h} rows")


def _single_cells(features: Tensor, cells: Sequence[tuple[int, int]]) -> tuple[Tensor, Window]:
    """Features (k, C, h', w') of which all but one cell are zero, in the smallest window that holds the cells."""
    columns, rows = zip(*cells, strict=True)
    window = Window(min(rows), max(rows) + 1, min(columns), max(columns) + 1)
    starts = torch.zeros_like(cut(features, window)).repeat(len(cells), 1, 1, 1)
    for item, (column, row) in enumerate(cells):
        starts[item, :, row - window.top, column - window.left] = features[0, :, row, column]
    return starts, window
