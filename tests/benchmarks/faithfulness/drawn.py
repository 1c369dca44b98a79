"""Where explanations look on drawn animals, whose masks are known.

python -m tests.benchmarks.faithfulness.drawn [--animals 8] [--method NAME ...]

Two photos of each animal, of two encounters, are explained with the embedded model. `on_animal` is the share of
a map's positive relevance on the animals, `area` the share of the chip that they cover, which is chance;
`highest` is how often the highest pixel lies on the animal. A network may well look at the background.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from pairx_engine.engine import Engine
from pairx_engine.errors import PairxError
from pairx_engine.explanations import explain, usual
from pairx_engine.photo.chips import chip_of, cut_photo
from pairx_engine.toy.animal import SPECIES, Animal, Encounter, Shot, draw_photo
from schemas.settings import load_settings
from tasks.job import recipe_of


def main(words: Sequence[str] | None = None) -> int:
    """Draw, explain, and print one row per method, the surest on top."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.faithfulness.drawn", description=__doc__
    )
    parser.add_argument("--animals", type=int, default=8, help="Animals, two photos each.")
    parser.add_argument("--method", action="append", help="Method; repeatable. Default: all affordable ones.")
    given = parser.parse_args(words)
    engine = Engine(recipe_of(load_settings()), "cpu")
    subject = engine.subject()
    found: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)
    failed: dict[str, str] = {}
    for number in range(given.animals):
        chips, covers = zip(*(_seen(engine, number, encounter) for encounter in (0, 1)), strict=True)
        for method in given.method or usual():
            try:
                maps = explain(method, subject, *chips).maps
            except PairxError as error:
                failed[method] = str(error)
                continue
            found[method] += [looked(one, cover) for one, cover in zip(maps, covers, strict=True)]
    print("| method | on_animal | area | highest |\n|---|---|---|---|")
    for method, rows in sorted(found.items(), key=lambda item: -fmean(row[0] for row in item[1])):
        print(f"| {method} | {' | '.join(f'{fmean(column):.3f}' for column in zip(*rows, strict=True))} |")
    for method, reason in failed.items():
        print(f"\n* {method}: {reason}")
    return 0


def _seen(engine: Engine, number: int, encounter: int) -> tuple[Tensor, Tensor]:
    """A drawn photo as a normalised chip, and where on the chip the animal is."""
    animal = Animal(1000 + number, sorted(SPECIES)[number % len(SPECIES)])
    photo = draw_photo(animal, Encounter(10 * number + encounter), Shot(0, "left"))
    assert photo.cover is not None
    masked = np.repeat(photo.cover[..., None], 3, axis=2)
    chip, cover = (
        chip_of(cut_photo(pixels, photo.box), engine.model.chip) for pixels in (photo.pixels, masked)
    )
    return engine.model.normalise([chip])[0], torch.from_numpy(cover[..., 0] > 127)


def looked(relevance: Tensor, cover: Tensor) -> tuple[float, float, bool]:
    """Share of positive relevance (H, W) on the covered part (H, W), that part's area, whether the highest is on it.

    A map with nothing positive has as much there as anywhere.
    """
    positive = relevance.detach().cpu().double().clamp(min=0)
    area = float(cover.double().mean())
    total = float(positive.sum())
    share = float(positive[cover].sum()) / total if total > 0 else area
    return share, area, bool(cover.flatten()[int(positive.flatten().argmax())])


if __name__ == "__main__":
    sys.exit(main())
