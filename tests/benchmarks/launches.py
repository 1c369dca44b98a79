"""What an explanation would launch on a GPU, part by part, counted without one: nothing is computed.

    python -m tests.benchmarks.launches
    python -m tests.benchmarks.launches --network mobilenet --precision bfloat16 --markdown

Counts are of the steady state, after a first photo: launches, waits for the GPU, changes of layout, distinct shapes of
convolutions, arithmetic, bytes moved, and memory. They are no times, but a version that launches less, waits less and moves less
is the better one on every GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pairx_engine.lrp import PRESETS
from pairx_engine.propagation.precision import PRECISIONS
from pairx_engine.relevance import LayerExplainer, Seen
from pairx_engine.starts import starts_of
from tests.benchmarks.fake_gpu import default_size, fake_chips, fake_explainer
from tests.benchmarks.launch_counter import Counts, counted, steady

PARTNERS, MAPS = 10, 10
Part = tuple[str, Callable[[], Any]]


def parts(explainer: LayerExplainer, size: int) -> Iterator[Part]:
    """The parts of an explanation and their work, to be run in order."""
    layer, (chip, *others) = explainer.layers[0], fake_chips(4, size)
    plain: list[Seen] = []
    kept: list[Seen] = []

    def starts(n: int) -> Tensor:
        embeddings = torch.empty(n, *plain[0].embedding.shape, device=chip.device)
        return starts_of(explainer.preset, plain[0].embedding, embeddings)[0]

    yield "forward", lambda: plain.append(explainer.see(chip))
    yield "recorded forward", lambda: kept.append(explainer.see(chip, keep=True))
    del plain[1:], kept[1:]
    given = counted_starts(lambda: starts(1))
    yield "record above, pull 1", lambda: explainer.relevance(plain[0], given)
    yield "pull 1 above", lambda: explainer.relevance(kept[0], given)
    for n, which in ((1, ""), (MAPS, ""), (MAPS, ", other cells")):
        cells = cells_of(plain[0].features[layer], n, seed=len(which))
        yield (
            f"{n} pixel map{'s' * (n > 1)}{which}",
            lambda cells=cells: explainer.pixel_maps(kept[0], layer, cells),
        )
    yield "whole pair", lambda: whole_pair(explainer, chip, others[0])
    yield "four photos, scores only", lambda: scores_only(explainer, chip, *others)


def counted_starts(make: Callable[[], Tensor]) -> Tensor:
    """Starts on the fake GPU."""
    made: list[Tensor] = []
    counted(lambda: made.append(make()))
    return made[0]


def cells_of(features: Tensor, n: int, seed: int) -> list[tuple[int, int]]:
    """Cells (column, row) all over the layer's map."""
    height, width = features.shape[-2:]
    return [(i % width, i // width) for i in random.Random(seed).sample(range(height * width), n)]


def whole_pair(explainer: LayerExplainer, *chips: Tensor) -> list[Tensor]:
    """Both photos with one start each, and pixel maps; all results on the host."""
    layer = explainer.layers[0]
    seen = explainer.see_all(chips, keep=True)
    both = starts_of(explainer.preset, *(one.embedding for one in seen))
    found = explainer.relevances(seen, [start[None] for start in both])
    results = [one[layer].float().cpu() for one in found]
    cells = [cells_of(one.features[layer], MAPS, seed=0) for one in seen]
    return [*results, *(maps.float().cpu() for maps in explainer.all_pixel_maps(seen, layer, cells))]


def scores_only(explainer: LayerExplainer, *chips: Tensor) -> list[Tensor]:
    """Photos with all their partners' starts."""
    explainer = explainer.suited_to("score")
    seen = explainer.see_all(chips)
    partners = torch.empty(PARTNERS, *seen[0].embedding.shape, device=chips[0].device)
    starts = [starts_of(explainer.preset, one.embedding, partners)[0] for one in seen]
    return [found[explainer.layers[0]].float().cpu() for found in explainer.relevances(seen, starts)]


def count_parts(explainer: LayerExplainer, size: int) -> dict[str, Counts]:
    """Counts by part, each after it has run once."""
    return {name: steady(work) for name, work in parts(explainer, size)}


def table(found: dict[str, Counts], markdown: bool) -> str:
    """One row per part; shapes are those of convolutions, and how many of them no part before has."""
    head = (
        *("part", "launches", "waits", "mixed", "copied", "operand", "shapes", "new", "GFLOP", "GB moved"),
        *("MB peak", "MB kept"),
    )
    rows, seen = [head], set()
    for name, counts in found.items():
        new = counts.shapes - seen
        seen |= counts.shapes
        rows.append(
            (
                name,
                str(counts.launches),
                str(counts.synchronisations),
                *(str(counts.conversions.get(kind, 0)) for kind in ("mixed", "copied", "operand")),
                str(len(counts.shapes)),
                str(len(new)),
                f"{counts.flop / 1e9:.1f}",
                f"{counts.bytes / 1e9:.2f}",
                f"{counts.peak / 1e6:.0f}",
                f"{counts.kept / 1e6:.0f}",
            )
        )
    return _aligned(rows, markdown)


def ops_table(counts: Counts, markdown: bool, most: int = 25) -> str:
    """The operations of one part, most frequent first, and the engine's lines that wait or convert."""
    listed = sorted(counts.ops.items(), key=lambda item: -item[1].launches)[:most]
    rows = [("operation", "launches", "GFLOP", "GB moved")]
    rows += [(name, str(t.launches), f"{t.flop / 1e9:.1f}", f"{t.bytes / 1e9:.2f}") for name, t in listed]
    places = [("line", "times")]
    places += [(place, str(n)) for place, n in sorted(counts.places.items(), key=lambda item: -item[1])]
    return _aligned(rows, markdown) + "\n\n" + _aligned(places, markdown)


def as_json(found: dict[str, Counts]) -> dict[str, Any]:
    """Everything counted, as plain values."""
    return {
        name: {
            "launches": counts.launches,
            "synchronisations": counts.synchronisations,
            "conversions": dict(counts.conversions),
            "shapes": len(counts.shapes),
            "flop": counts.flop,
            "bytes": counts.bytes,
            "peak": counts.peak,
            "kept": counts.kept,
            "ops": {op: vars(tally) for op, tally in counts.ops.items()},
            "places": dict(counts.places),
        }
        for name, counts in found.items()
    }


def _aligned(rows: list[tuple[str, ...]], markdown: bool) -> str:
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(n) if i else cell.ljust(n) for i, (cell, n) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> int:
    """Count and print."""
    own = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tests.benchmarks.launches", description=__doc__, formatter_class=own)
    parser.add_argument("--network", default="miewid", choices=["miewid", "mobilenet"])
    parser.add_argument("--size", type=int, help="side of the chips in pixels (the network's own)")
    parser.add_argument("--preset", default="published", choices=list(PRESETS))
    parser.add_argument("--precision", default="float32", choices=list(PRECISIONS))
    parser.add_argument(
        "--ops", metavar="PART", help="also list the operations of a part, such as 'whole pair'"
    )
    parser.add_argument("--json", type=Path, help="also write everything counted to this file")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    chosen = parser.parse_args()
    explainer = fake_explainer(chosen.network, chosen.preset, chosen.precision)
    size = chosen.size or default_size(chosen.network)
    found = count_parts(explainer, size)
    if chosen.ops and chosen.ops not in found:
        parser.error(f"unknown part {chosen.ops}; choose from {', '.join(found)}")
    print(
        f"{chosen.network}, {size} px, {chosen.preset}, {chosen.precision}\n\n{table(found, chosen.markdown)}"
    )
    if chosen.ops:
        print(f"\n{chosen.ops}\n\n{ops_table(found[chosen.ops], chosen.markdown)}")
    if chosen.json:
        chosen.json.write_text(json.dumps(as_json(found), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
