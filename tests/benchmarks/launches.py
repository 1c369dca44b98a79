"""What an explanation would launch on a GPU, part by part, counted without one: nothing is computed.

    python -m tests.benchmarks.launches
    python -m tests.benchmarks.launches --network mobilenet --precision bfloat16 --ops "whole pair"
    python -m tests.benchmarks.launches --json after.json --before before.json --markdown

Counts are of the steady state, after a first photo: launches, waits for the GPU, changes of layout, distinct
shapes of convolutions, arithmetic, bytes moved, and memory. They are no times, but a version that launches
less, waits less and moves less is the better one on every GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pairx_engine.relevance.explainer import LayerExplainer, Seen
from pairx_engine.relevance.precision import PRECISIONS
from pairx_engine.relevance.presets import PRESETS
from pairx_engine.relevance.starts import starts_of
from tests.benchmarks.fake_gpu import default_size, fake_chips, fake_explainer
from tests.benchmarks.launch_counter import Answer, ConvShape, Counts, counted, nothing_unusual

PARTNERS, MAPS, PHOTOS = 10, 10, 4
ANSWERS: dict[str, Answer] = {"usual": nothing_unusual, "no": lambda origin: False}
Part = tuple[str, Callable[[], Any]]
Counted = dict[str, Any]
"""One part's counts as plain values."""


def parts(explainer: LayerExplainer, chips: list[Tensor]) -> Iterator[Part]:
    """The parts of an explanation and their work, each to be run before the next is asked for."""
    layer, chip = explainer.layers[0], chips[0]
    plain: list[Seen] = []
    kept: list[Seen] = []
    given: dict[int, Tensor] = {}
    yield "forward", lambda: plain.append(explainer.see(chip))
    yield "recorded forward", lambda: kept.append(explainer.see(chip, keep=True))
    # What is not counted is made within `counted` as well, for its fake tensors.
    counted(lambda: given.update({n: partners_starts(explainer, plain[0], n) for n in (1, PARTNERS)}))
    for n, starts in given.items():
        suited = explainer.suited_to("score") if n > 1 else explainer

        def pull(seen: list[Seen], starts: Tensor = starts, suited: LayerExplainer = suited) -> object:
            return suited.relevance(seen[0], starts)

        yield f"record above, pull {n}", lambda pull=pull: pull(plain)
        yield f"pull {n} above", lambda pull=pull: pull(kept)
    for n, which in ((1, ""), (MAPS, ""), (MAPS, ", other cells")):
        cells = cells_of(plain[0].features[layer], n, seed=len(which))
        name = f"{n} pixel map{'s' if n > 1 else ''}{which}"
        yield name, lambda cells=cells: explainer.pixel_maps(kept[0], layer, cells)
    kept.clear()
    yield "whole pair", lambda: whole_pair(explainer, chips[:2])
    yield "photo, scores only", lambda: scores_only(explainer, chips[:1])
    yield f"{PHOTOS} photos, scores only", lambda: scores_only(explainer, chips)


def partners_starts(explainer: LayerExplainer, seen: Seen, n: int) -> Tensor:
    """Starts of a photo (n, D), one for each of its partners."""
    partners = torch.empty(n, *seen.embedding.shape, device=seen.embedding.device)
    return starts_of(explainer.preset, seen.embedding, partners)[0]


def cells_of(features: Tensor, n: int, seed: int) -> list[tuple[int, int]]:
    """Cells (column, row) all over the layer's map."""
    height, width = features.shape[-2:]
    return [(i % width, i // width) for i in random.Random(seed).sample(range(height * width), n)]


def whole_pair(explainer: LayerExplainer, chips: list[Tensor]) -> list[Tensor]:
    """Two photos with one start each, and pixel maps of both; all results on the host."""
    layer = explainer.layers[0]
    seen = explainer.see_all(chips, keep=True)
    both = starts_of(explainer.preset, *(one.embedding for one in seen))
    found = explainer.relevances(seen, [start[None] for start in both])
    cells = [cells_of(one.features[layer], MAPS, seed=0) for one in seen]
    maps = explainer.all_pixel_maps(seen, layer, cells)
    return [grids.float().cpu() for grids in (*(one[layer] for one in found), *maps)]


def scores_only(explainer: LayerExplainer, chips: list[Tensor]) -> list[Tensor]:
    """Photos with all their partners' starts, as a score shard takes them; results on the host.

    A single photo goes in without a batch.
    """
    explainer = explainer.suited_to("score")
    seen = explainer.see_all(chips) if len(chips) > 1 else [explainer.see(chips[0])]
    starts = [partners_starts(explainer, one, PARTNERS) for one in seen]
    several = len(seen) > 1
    found = explainer.relevances(seen, starts) if several else [explainer.relevance(seen[0], starts[0])]
    return [one[explainer.layers[0]].float().cpu() for one in found]


def count_parts(explainer: LayerExplainer, size: int, answer: Answer = nothing_unusual) -> dict[str, Counted]:
    """Counts by part; `new_shapes` are shapes of convolutions that no earlier part has."""
    chips = fake_chips(PHOTOS, size)
    for first in (lambda: whole_pair(explainer, chips[:2]), lambda: scores_only(explainer, chips)):
        counted(first, answer)
    found: dict[str, Counted] = {}
    known: set[ConvShape] = set()
    for name, work in parts(explainer, chips):
        counts = counted(work, answer)
        found[name] = _plain(counts, len(counts.shapes - known))
        known |= counts.shapes
    return found


def _plain(counts: Counts, new_shapes: int) -> Counted:
    return {
        "launches": counts.launches,
        "synchronisations": counts.synchronisations,
        "conversions": {kind: counts.conversions.get(kind, 0) for kind in ("mixed", "copied", "operand")},
        "shapes": len(counts.shapes),
        "new_shapes": new_shapes,
        "flop": counts.flop,
        "bytes": counts.bytes,
        "peak": counts.peak,
        "kept": counts.kept,
        "ops": {op: vars(tally) for op, tally in counts.ops.items()},
        "places": dict(counts.places),
    }


_COLUMNS: dict[str, Callable[[Counted], str]] = {
    "launches": lambda c: str(c["launches"]),
    "waits": lambda c: str(c["synchronisations"]),
    "mixed": lambda c: str(c["conversions"]["mixed"]),
    "copied": lambda c: str(c["conversions"]["copied"]),
    "operand": lambda c: str(c["conversions"]["operand"]),
    "shapes": lambda c: str(c["shapes"]),
    "new": lambda c: str(c["new_shapes"]),
    "GFLOP": lambda c: f"{c['flop'] / 1e9:.1f}",
    "GB moved": lambda c: f"{c['bytes'] / 1e9:.2f}",
    "MB peak": lambda c: f"{c['peak'] / 1e6:.0f}",
    "MB kept": lambda c: f"{c['kept'] / 1e6:.0f}",
}


def table(found: Mapping[str, Counted], markdown: bool, before: Mapping[str, Counted] | None = None) -> str:
    """One row per part; a count of `before` that differs stands in front."""

    def cell(name: str, value: Callable[[Counted], str]) -> str:
        now = value(found[name])
        then = value(before[name]) if before and name in before else now
        return now if now == then else f"{then} → {now}"

    rows = [("part", *_COLUMNS)]
    rows += [(name, *(cell(name, value) for value in _COLUMNS.values())) for name in found]
    return _aligned(rows, markdown)


def details(counts: Counted, markdown: bool) -> str:
    """The operations of one part, most frequent first, and the engine's lines that wait or convert."""
    ops = sorted(counts["ops"].items(), key=lambda item: -item[1]["launches"])
    rows = [("operation", "launches", "GFLOP", "GB moved")]
    rows += [
        (name, str(t["launches"]), f"{t['flop'] / 1e9:.1f}", f"{t['bytes'] / 1e9:.2f}") for name, t in ops
    ]
    places = sorted(counts["places"].items(), key=lambda item: -item[1])
    lines = [("line", "times"), *((place, str(n)) for place, n in places)]
    return f"{_aligned(rows, markdown)}\n\n{_aligned(lines, markdown)}"


def _aligned(rows: list[tuple[str, ...]], markdown: bool) -> str:
    if markdown:
        head, *others = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([head, "| --- " * len(rows[0]) + "|", *others])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)] for row in rows]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *others]) for row, others in zip(rows, padded, strict=True)
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
        "--answers",
        default="usual",
        choices=list(ANSWERS),
        help="to what the work asks of its values (usual)",
    )
    parser.add_argument(
        "--ops", metavar="PART", help="also list the operations of a part, such as 'whole pair'"
    )
    parser.add_argument("--json", type=Path, help="also write everything counted to this file")
    parser.add_argument("--before", type=Path, help="such a file of another version, to print beside it")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    chosen = parser.parse_args()
    before = json.loads(chosen.before.read_text(encoding="utf-8")) if chosen.before else None
    explainer = fake_explainer(chosen.network, chosen.preset, chosen.precision)
    size = chosen.size or default_size(chosen.network)
    found = count_parts(explainer, size, ANSWERS[chosen.answers])
    print(f"{chosen.network}, {size} px, {chosen.preset}, {chosen.precision}\n")
    print(table(found, chosen.markdown, before))
    if chosen.ops in found:
        print(f"\n{chosen.ops}\n\n{details(found[chosen.ops], chosen.markdown)}")
    elif chosen.ops:
        print(f"\nno part {chosen.ops}; there are {', '.join(found)}", file=sys.stderr)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(bool(chosen.ops) and chosen.ops not in found)


if __name__ == "__main__":
    sys.exit(main())
