"""Relevance at inner layers and in pixels, from one explainer per network.

All grids are (h, w) of the layer's feature map; cells are (column, row), both counted from 0 at the top left.
Chips are normalised network inputs (3, H, W) on the network's device. Under the presets for transformers a
layer may also give tokens or channels that are last (`pairx_engine.models.cells`); its features are maps
(C, h, w) all the same.

For a given chip the rules are linear in the start relevance. So a chip runs forward once, its ratio terms are
kept, and any number of starts is pulled through them: one per partner above the layer, one per match below
it. Chips may run forward together (`Tuning.photos`); each then has its own terms and its own starts.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pairx_engine.device.groups import filled, first_of_each, in_groups, of_photo, rows, together
from pairx_engine.device.tuning import Task, Tuning, tuning_for
from pairx_engine.errors import EngineError
from pairx_engine.models.cells import CellGrid
from pairx_engine.relevance.descriptors import entry_of
from pairx_engine.relevance.fast import PullAbove, PullBelow, Pulls
from pairx_engine.relevance.general import GeneralPath
from pairx_engine.relevance.precision import precision_named
from pairx_engine.relevance.presets import Reduction, preset_named, reduce_channels
from pairx_engine.relevance.seen import Cell, Kept, Seen, check_cells, pass_of, single_cells
from pairx_engine.relevance.ways import PathChoice, Way, Ways
from pairx_engine.relevance.window import whole

Key = TypeVar("Key")


class LayerExplainer:
    """Relevances and pixel maps of one network at some of its layers.

    `layers` are dotted module paths. `preset` names an entry of `PRESETS`, `precision` one of `PRECISIONS`,
    and `reduction` one of `REDUCTIONS` that replaces the preset's own. The fast path never touches the
    network and serves any number of threads at once. A network that it cannot read takes the general path,
    where threads take turns, and `notice` says why. Both leave the network as they found it. `path` insists
    on one of them. `tuning` suits the network's device unless given. Raises `EngineError` for unknown names,
    and where preset, precision or path ask for what the network's path does not offer.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        preset: str = "published",
        precision: str = "float32",
        path: PathChoice = "auto",
        reduction: str | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        if not layers or isinstance(layers, str):
            raise EngineError("name at least one layer to explain, as a list of dotted module paths")
        self.network = network
        self.preset = preset_named(preset, reduction)
        self.precision = precision_named(precision)
        self.layers = tuple(dict.fromkeys(layers))
        device = _device_of(network)
        self._given = tuning
        self.tuning = tuning or tuning_for(device, self.precision.name)
        if self.tuning.graphs and device.type != "cuda":
            raise EngineError(f"CUDA graphs need a CUDA device; this network is on {device}")
        self._ways = Ways(network, self.layers, self.preset, self.precision, self.tuning, path)

    @property
    def path(self) -> Literal["fast", "general"]:
        """Which path explains this network."""
        return self._ways.path

    @property
    def notice(self) -> str | None:
        """Why the general path explains this network, unless that path was asked for."""
        return self._ways.notice

    def suited_to(self, task: Task) -> LayerExplainer:
        """The same explainer with the groups that suit a task, unless its tuning was given."""
        twin = copy.copy(self)
        twin.tuning = self._given or tuning_for(_device_of(self.network), self.precision.name, task)
        return twin

    def see(self, chip: Tensor, keep: bool = False) -> Seen:
        """Embedding and features of a chip (3, H, W), by one forward pass.

        With `keep` the whole pass is recorded, for later relevances and pixel maps; that holds hundreds of
        megabytes for a large model. Without it, these run the part that they need again.
        """
        return self._see([chip], 1, keep)[0]

    def see_all(self, chips: Sequence[Tensor], keep: bool = False) -> list[Seen]:
        """As `see`, of several chips of one size, as many in a forward pass as the tuning says.

        The last pass is filled up: kernels are chosen by shape, and a photo's numbers must not depend on its
        company.
        """
        return [
            one
            for group in in_groups(chips, self.tuning.photos, lambda g, size: self._see(g, size, keep))
            for one in group
        ]

    def relevance(self, seen: Seen, starts: Tensor) -> dict[str, Tensor]:
        """Relevance of a seen chip for each start relevance of its embedding (P, D): per layer (P, h, w).

        Only the part above the lowest layer runs again, once for all starts. Reduced over channels as
        `preset.reduction` says.
        """
        how = self.preset.reduction
        return self.relevance_by_reduction(seen, starts, [how])[how]

    def relevances(self, seen: Sequence[Seen], starts: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """As `relevance`, for several chips with their own starts each."""
        how = self.preset.reduction
        return [found[how] for found in self.relevances_by_reduction(seen, starts, [how])]

    def relevance_by_reduction(
        self, seen: Seen, starts: Tensor, reductions: Sequence[Reduction]
    ) -> dict[Reduction, dict[str, Tensor]]:
        """As `relevance`, reduced in each of several ways; propagated once, never holding all channels."""
        return self._reduced([seen], [starts], reductions, 1)[0]

    def relevances_by_reduction(
        self, seen: Sequence[Seen], starts: Sequence[Tensor], reductions: Sequence[Reduction]
    ) -> list[dict[Reduction, dict[str, Tensor]]]:
        """As `relevance_by_reduction`, for several chips with their own starts each."""
        return self._reduced(seen, starts, reductions, self.tuning.photos)

    def channel_relevance(self, seen: Seen, starts: Tensor) -> dict[str, Tensor]:
        """As `relevance`, but the signed relevance of every channel, per layer (P, C, h, w)."""
        return self._above([seen], [starts], lambda channels: channels, 1)[0]

    def channel_relevances(self, seen: Sequence[Seen], starts: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """As `channel_relevance`, for several chips with their own starts each."""
        return self._above(seen, starts, lambda channels: channels, self.tuning.photos)

    def pixel_relevance(self, seen: Seen, layer: str, channels: Tensor) -> Tensor:
        """Signed relevance of the pixels (P, 3, H, W) from that of a layer's channels (P, C, h, w).

        The chip must have been seen with `keep`, alone. Raises `EngineError` on the general path.
        """
        if self.path != "fast":
            raise EngineError("relevance in pixels needs the fast path, which cannot explain this network")
        assert seen.kept is not None, "the fast path keeps what it is asked to keep"
        grid = self._ways.cells(layer, seen.outputs[layer][None], seen.chip)
        held = whole(channels) if grid.form == "map" else None
        return seen.kept.pulls.below(layer, grid.placed(channels), held).to(seen.chip.dtype)

    def pixel_maps(self, given: Tensor | Seen, layer: str, cells: ArrayLike | Tensor) -> Tensor:
        """Pixel maps (k, H, W) of single cells (k, 2), as (column, row), of a chip (3, H, W), seen or not.

        The start is the layer's features with all cells but one set to zero, propagated to the input; the map
        is |sum over RGB|. On the fast path one forward pass, stopped at the layer, serves all cells. Raises
        `EngineError` for cells outside the grid or an unknown layer.
        """
        return self._below([given], layer, [cells], 1)[0]

    def all_pixel_maps(
        self, given: Sequence[Tensor | Seen], layer: str, cells: Sequence[ArrayLike | Tensor]
    ) -> list[Tensor]:
        """As `pixel_maps`, for several chips of one size with their own cells each."""
        return self._below(given, layer, cells, self.tuning.photos)

    def _below(
        self,
        given: Sequence[Tensor | Seen],
        layer: str,
        cells: Sequence[ArrayLike | Tensor],
        photos: int,
    ) -> list[Tensor]:
        if layer not in self.layers:
            raise EngineError(f"layer {layer!r} is not among this explainer's: {', '.join(self.layers)}")
        chips = [one.chip if isinstance(one, Seen) else one for one in given]
        where = [
            [(int(c), int(r)) for c, r in torch.as_tensor(some, dtype=torch.long).reshape(-1, 2).tolist()]
            for some in cells
        ]
        maps = [chip.new_zeros((0, *chip.shape[-2:])) for chip in chips]
        wanted = [i for i, some in enumerate(where) if some]

        def below(group: Sequence[int], size: int) -> list[tuple[int, Tensor]]:
            features, grid, pull = self._recorded_below([given[i] for i in group], size, layer)
            for i in group:
                check_cells(where[i], features)
            found = self._pulled_below(layer, features, grid, pull, [where[i] for i in group])
            return [(i, one.to(chips[i].dtype)) for i, one in zip(group, found, strict=True)]

        for group in in_groups(wanted, photos, below):
            for i, found in group:
                maps[i] = found
        return maps

    def _see(self, chips: Sequence[Tensor], size: int, keep: bool) -> list[Seen]:
        batch = torch.stack(filled(chips, size))
        embedding, outputs, pulls = self._ways.recorded(lambda way: _forward(way, batch, keep))
        if len(embedding) != size:
            # The network takes one chip at a time, whatever it is given.
            self.tuning = replace(self.tuning, photos=1)
            return [one for chip in chips for one in self._see([chip], 1, keep)]
        features = {
            name: self._ways.cells(name, outputs[name], batch[0]).maps(outputs[name]) for name in self.layers
        }
        kept = Kept(pulls, features, len(chips)) if pulls else None
        matched = {
            name: self._ways.cells(name, keys, batch[0]).maps(keys)
            for name in self.layers
            if (keys := outputs.get(entry_of(name))) is not None
        }
        return [
            Seen(
                chip,
                embedding[i],
                {name: matched.get(name, features[name])[i] for name in self.layers},
                kept,
                i,
                {name: outputs[name][i] for name in self.layers},
            )
            for i, chip in enumerate(chips)
        ]

    def _reduced(
        self, seen: Sequence[Seen], starts: Sequence[Tensor], reductions: Sequence[Reduction], photos: int
    ) -> list[dict[Reduction, dict[str, Tensor]]]:
        found = self._above(
            seen,
            starts,
            lambda channels: {
                (how, name): reduce_channels(channels[name], how)
                for how in reductions
                for name in self.layers
            },
            photos,
        )
        return [{how: {name: one[how, name] for name in self.layers} for how in reductions} for one in found]

    def _above(
        self,
        seen: Sequence[Seen],
        starts: Sequence[Tensor],
        take: Callable[[dict[str, Tensor]], dict[Key, Tensor]],
        photos: int,
    ) -> list[dict[Key, Tensor]]:
        """What `take` makes of the channels' relevance (P, C, h, w) by layer, for each chip and its starts.

        `photos` chips at a time; a chip alone is a group of its own kind.
        """
        for given in starts:
            if given.ndim != 2 or len(given) == 0:
                raise EngineError(
                    f"starts must be (P, D) with at least one of them, not of shape {tuple(given.shape)}"
                )

        def above(group: Sequence[int], size: int) -> list[tuple[int, dict[Key, Tensor]]]:
            together = [seen[i] for i in group]
            pull, recorded = self._recorded_above(together, size)
            wanted = filled([starts[i] for i in group], recorded)
            found = self._pulled_above(pull, wanted, together[0], take)
            return list(zip(group, found, strict=False))

        order: Sequence[int] = range(len(seen))
        if len(seen) > photos > 1:
            # Chips with equally many starts go together, since chips with fewer wait for the others.
            order = sorted(order, key=lambda i: -len(starts[i]))
        groups = in_groups(order, photos, above)
        found = dict(item for group in groups for item in group)
        return [found[i] for i in range(len(seen))]

    def _pulled_above(
        self,
        pull: PullAbove,
        starts: Sequence[Tensor],
        seen: Seen,
        take: Callable[[dict[str, Tensor]], dict[Key, Tensor]],
    ) -> list[dict[Key, Tensor]]:
        photos, (largest, fill) = len(starts), self._starts_at_once(seen)

        cells = {name: self._ways.cells(name, seen.outputs[name][None], seen.chip) for name in self.layers}

        def part(group: Sequence[int], size: int) -> dict[Key, Tensor]:
            count = size if fill else len(group)
            # A chip with fewer starts than the others pulls its last one again.
            given = [rows(some, group[0], len(group), count) for some in starts]
            found = pull(given[0] if photos == 1 else torch.cat(given))
            channels = {
                name: first_of_each(cells[name].maps(found[name]), photos, len(group)).to(starts[0].dtype)
                for name in self.layers
            }
            return take(channels)

        groups = list(in_groups(range(max(map(len, starts))), largest, part))
        return [
            {
                key: together([of_photo(one[key], i, photos) for one in groups])[: len(some)]
                for key in groups[0]
            }
            for i, some in enumerate(starts)
        ]

    def _pulled_below(
        self,
        layer: str,
        features: Tensor,
        grid: CellGrid,
        pull: PullBelow,
        cells: Sequence[Sequence[Cell]],
    ) -> list[Tensor]:
        # Under the rules for transformers relevance is pulled through whole values.
        windows, photos = self.tuning.windows and not self._ways.reads_tokens, len(features)
        every = filled(cells, photos)

        def maps(group: Sequence[int], size: int) -> Tensor:
            numbers = group if windows else filled(group, size)
            wanted = [[some[min(n, len(some) - 1)] for n in numbers] for some in every]
            starts, held = single_cells(features, wanted, windows)
            # One colour after another: a sum over three neighbours in memory is several times as slow.
            window = held if grid.form == "map" else None
            colours = pull(layer, grid.placed(starts), window).to(features.dtype).unbind(dim=1)
            found = functools.reduce(torch.add, colours).abs()
            return found.unflatten(0, (photos, -1))[:, : len(group)]

        # One at a time on a CPU: each is pulled through its own receptive field only.
        found = torch.cat(list(in_groups(range(max(map(len, cells))), self.tuning.maps, maps)), dim=1)
        return [found[i, : len(some)] for i, some in enumerate(cells)]

    def _recorded_above(self, seen: Sequence[Seen], size: int) -> tuple[PullAbove, int]:
        """The pull above the layers of chips seen before, and its size: `size`, or that of their own pass."""
        kept = pass_of(seen)
        if kept is not None:
            return kept.pulls.above, kept.photos
        every = filled(seen, size)
        chips = torch.stack([one.chip for one in every])
        outputs = {name: torch.stack([one.outputs[name] for one in every]) for name in self.layers}
        return self._ways.recorded(lambda way: way.record_above(chips, outputs)), size

    def _recorded_below(
        self, given: Sequence[Tensor | Seen], size: int, layer: str
    ) -> tuple[Tensor, CellGrid, PullBelow]:
        """Features of chips (N, C, h, w), filled up to `size` unless of one pass; the pull below the layer.

        Between them stands where the layer's output has its cells.
        """
        kept = pass_of(given)
        if kept is not None:
            first = given[0]
            assert isinstance(first, Seen)
            grid = self._ways.cells(layer, first.outputs[layer][None], first.chip)
            return kept.features[layer], grid, kept.pulls.below
        chips = torch.stack([one.chip if isinstance(one, Seen) else one for one in filled(given, size)])
        output, pull = self._ways.recorded(lambda way: way.record_below(chips, layer))
        grid = self._ways.cells(layer, output, chips[0])
        return grid.maps(output), grid, pull

    def _starts_at_once(self, seen: Seen) -> tuple[int, bool]:
        """Starts of a chip that are pulled together above the layers, and whether groups are filled up."""
        tuning = self.tuning
        cells = max(features.shape[-2] * features.shape[-1] for features in seen.features.values())
        at_once = tuning.starts if tuning.cells is None else max(1, min(tuning.starts, tuning.cells // cells))
        return at_once, tuning.filled_below is None or cells < tuning.filled_below


def _forward(way: Way, chips: Tensor, keep: bool) -> tuple[Tensor, dict[str, Tensor], Pulls | None]:
    if keep and not isinstance(way, GeneralPath):
        return way.record(chips)
    return (*way.forward(chips), None)


def _device_of(network: nn.Module) -> torch.device:
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return torch.device("cpu")
