"""How much faster our engine explains transformers than the same rules written by replaced operations.

    python -m tests.benchmarks.transformers [vit swin mini_swin] [--device cuda] [--threads 2]

The other way runs every operation of the network under its rule (`tests.pairx_engine.slow_transformers`), with
one forward pass per photo, whose graph is kept for all starts, or with one per match as published code has it.
Both explain the same pair of photos in one process, one after the other (memory is measured in processes of their own): everything with ten pixel maps a side,
and scores with ten partners a photo. The numbers of both are compared first; the exit status is 1 where they
differ. `vit` and `mini_swin` are real weights where they are at hand, all others random.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pairx_engine.models import load_model
from pairx_engine.models.cells import cell_grid, extra_tokens
from pairx_engine.models.timm_model import TimmDescription, build_timm
from pairx_engine.photo.chips import ChipSpec, chip_of
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.starts import cosine_shares
from tests.benchmarks.cases import SHARED, _photos
from tests.benchmarks.measuring import PeakMemory, seconds
from tests.pairx_engine.slow_transformers import Pass, forward_pass
from tests.pairx_engine.small_transformers import beside_attention

AGREE = 1e-3
"""Largest difference in single precision, relative to the largest number of a map."""
_MAPS, _PARTNERS, _PRESET = 10, 10, "cp"


@dataclass(frozen=True)
class Case:
    """A network at a layer; `folder` are real weights, `timm_name` and its size what stands for them."""

    timm_name: str
    layer: str
    folder: str | None = None
    size: int = 224
    depth: int | None = None


@dataclass(frozen=True)
class Row:
    """Seconds of a pair by all ways, and peak memory in MB of one pass per photo and of ours."""

    title: str
    per_match: float | None
    before: float
    after: float
    memory_before: float
    memory_after: float


CASES = {
    "vit": Case("vit_small_patch14_dinov2", "backbone.blocks.8", "vit_small_dinov2"),
    "swin": Case("swin_tiny_patch4_window7_224", "backbone.layers.2"),
    "mini_swin": Case("swin_tiny_patch4_window7_224", "backbone.layers.2", "mini_swin_cows"),
    "tiny": Case("vit_tiny_patch16_224", "backbone.blocks.1", size=96, depth=3),
}
"""The last is for tests."""


def main(words: Sequence[str] | None = None) -> int:
    """Measure the chosen cases and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.transformers", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="Default: all.")
    parser.add_argument("--shared", type=Path, default=SHARED, help="Folder with data/ and models/.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)
    print(
        f"torch {torch.__version__}, {given.device}, {given.threads} threads; preset {_PRESET}, medians of {given.repeats}\n"
    )
    print(
        "| per pair | replaced operations, a pass per match | the same, one pass per photo | ours | times as fast | peak memory: one pass, ours |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    wrong = []
    for name in given.cases or list(CASES)[:-1]:
        rows, gap = measured(CASES[name], given.shared, given.device, given.repeats)
        for row in rows:
            per_match = "–" if row.per_match is None else f"{row.per_match:.1f} s"
            print(
                f"| {row.title} | {per_match} | {row.before:.3f} s | {row.after:.3f} s "
                f"| {row.before / row.after:.1f} | {row.memory_before:.0f}, {row.memory_after:.0f} MB |"
            )
        print(f"| | numbers differ by {gap:.1e} of a map's largest | | | | |", flush=True)
        wrong += [name] * (gap > AGREE)
    if wrong:
        print(f"the ways differ: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


def measured(case: Case, shared: Path, device: str, repeats: int) -> tuple[list[Row], float]:
    """Rows of a case, and how far apart the ways are, relative to the largest number of a map."""
    network, chips, title = _load(case, shared, device)
    ours, theirs = _Ours(network, case.layer), _Theirs(network, case.layer)
    gap = max(
        float((a.cpu() - b.cpu()).abs().max() / b.abs().max())
        for mine, other in zip(ours.everything(*chips), theirs.everything(*chips), strict=True)
        for a, b in zip(mine, other, strict=True)
    )
    rows = []
    for what, everything in (
        (f"all with {_MAPS} pixel maps a side", True),
        (f"scores only, {_PARTNERS} partners a photo", False),
    ):
        # A pair among ten partners of each photo costs a tenth of both photos.
        share = 1 if everything else 2 / _PARTNERS
        per_match = None
        if everything:
            (per_match,) = seconds(lambda: theirs.everything(*chips, a_pass_per_match=True), 1, device)
        before, after = (
            share * statistics.median(seconds(partial(_task, way, chips, everything), repeats, device))
            for way in (theirs, ours)
        )
        memory = [
            _in_a_process_of_its_own(_peak, case, shared, device, torch.get_num_threads(), mine, everything)
            for mine in (False, True)
        ]
        rows.append(Row(f"{title}, {what}", per_match, before, after, *memory))
    return rows, gap


def _task(way: _Ours | _Theirs, chips: Sequence[Tensor], everything: bool) -> Any:
    return way.everything(*chips) if everything else way.scores(*chips)


def _in_a_process_of_its_own(task: Callable[..., float], *words: Any) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(task, *words).result()


def _peak(case: Case, shared: Path, device: str, threads: int, mine: bool, everything: bool) -> float:
    """Peak memory of one task, in MB over the network."""
    torch.set_num_threads(threads)
    network, chips, _ = _load(case, shared, device)
    way: _Ours | _Theirs = (_Ours if mine else _Theirs)(network, case.layer)
    memory = PeakMemory(device)
    _task(way, chips, everything)
    return memory.megabytes()


def _load(case: Case, shared: Path, device: str) -> tuple[nn.Module, list[Tensor], str]:
    folder = None if case.folder is None else shared / "models" / case.folder
    photos, of_what = _photos(shared, 2)
    if folder is not None and folder.is_dir():
        model = load_model(folder, device)
        chips = model.normalise([chip_of(photo, model.chip) for photo in photos])
        return model.network, list(chips), f"{case.folder} ({model.chip.size[0]} px; {of_what})"
    torch.manual_seed(0)
    size = case.size, case.size
    options = {"img_size": size} | ({} if case.depth is None else {"depth": case.depth})
    network = build_timm(TimmDescription(case.timm_name, options, size, None, None)).to(device)
    spec = ChipSpec(size, (0.5,) * 3, (0.5,) * 3, "pil")
    stacked = torch.stack([torch.from_numpy(chip_of(photo, spec)) for photo in photos])
    chips = (stacked.permute(0, 3, 1, 2).float() / 127.5 - 1).to(device)
    return (
        network.requires_grad_(False),
        list(chips),
        f"{case.timm_name}, random weights ({size[0]} px; {of_what})",
    )


def _cells(height: int, width: int) -> list[tuple[int, int]]:
    """Cells spread over a grid, as (column, row)."""
    return [(3 * i % width, (5 * i + 1) % height) for i in range(_MAPS)]


class _Ours:
    def __init__(self, network: nn.Module, layer: str) -> None:
        self.layer = layer
        self.full = LayerExplainer(network, [layer], _PRESET)
        self.scorer = self.full.suited_to("score")

    def everything(self, chip_a: Tensor, chip_b: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Relevance of the layer's cells (h, w) and pixel maps (k, H, W) of both photos."""
        seen = self.full.see_all([chip_a, chip_b], keep=True)
        starts = cosine_shares(*(one.embedding for one in seen))
        grids = self.full.relevances(seen, [start[None] for start in starts])
        h, w = seen[0].features[self.layer].shape[-2:]
        maps = self.full.all_pixel_maps(seen, self.layer, [_cells(h, w)] * 2)
        return [(grid[self.layer][0], some) for grid, some in zip(grids, maps, strict=True)]

    def scores(self, chip: Tensor, other: Tensor) -> Tensor:
        """Relevance (P, h, w) of a photo for as many partners."""
        (seen,) = self.scorer.see_all([chip])
        return self.scorer.relevances([seen], [_partners(seen.embedding)])[0][self.layer]


class _Theirs:
    def __init__(self, network: nn.Module, layer: str) -> None:
        self.network, self.layer, self.attending = network, layer, beside_attention(network)

    def everything(
        self, chip_a: Tensor, chip_b: Tensor, a_pass_per_match: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """As ours."""
        passes = [self._pass(chip) for chip in (chip_a, chip_b)]
        starts = cosine_shares(*(one.embedding[0].detach() for one in passes))
        found = []
        for chip, kept, start in zip((chip_a, chip_b), passes, starts, strict=True):
            output = kept.outputs[self.layer]
            maps = self._maps(output, chip)
            (part,) = kept.gradient(kept.embedding, start[None], [output])
            grid = maps(output * part)[0].sum(dim=0)
            pixels = []
            for column, row in _cells(*grid.shape):
                of_match = self._pass(chip) if a_pass_per_match else kept
                mask = torch.zeros_like(output)
                maps(mask)[0, :, row, column] = 1
                (below,) = torch.autograd.grad(
                    of_match.outputs[self.layer], [of_match.pixels], mask, retain_graph=not a_pass_per_match
                )
                pixels.append((of_match.pixels * below)[0].sum(dim=0).abs().detach())
            found.append((grid.detach(), torch.stack(pixels)))
        return found

    def scores(self, chip: Tensor, other: Tensor) -> Tensor:
        """As ours."""
        kept = self._pass(chip)
        output = kept.outputs[self.layer]
        maps = self._maps(output, chip)
        return torch.stack(
            [
                maps(output * kept.gradient(kept.embedding, start[None], [output])[0])[0].sum(dim=0).detach()
                for start in _partners(kept.embedding[0].detach())
            ]
        )

    def _pass(self, chip: Tensor) -> Pass:
        return forward_pass(self.network, _PRESET, chip, [self.layer], self.attending)

    def _maps(self, output: Tensor, chip: Tensor) -> Callable[[Tensor], Tensor]:
        grid = cell_grid(output, chip.shape[-2:], extra_tokens(self.network, self.layer))
        assert grid is not None
        return grid.maps


def _partners(embedding: Tensor) -> Tensor:
    """Starts for as many partners as are measured, (P, D)."""
    drawn = torch.randn((_PARTNERS, len(embedding)), generator=torch.Generator().manual_seed(0))
    return torch.stack([cosine_shares(embedding, one)[0] for one in drawn.to(embedding)])


if __name__ == "__main__":
    sys.exit(main())
