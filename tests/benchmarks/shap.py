"""How far Kernel SHAP over superpixels can be trusted, by segments, samples and fill.

    python -m tests.benchmarks.shap --photos FOLDER --model MODEL --pairs 4 --samples 200,1000,2000

Photos lie in FOLDER as catalogues have them, with `metadata.csv` (`path`, `identity`); pairs are of one animal,
drawn by `--seed`. Each row is over both photos of all pairs:

* `r`: Pearson's correlation over the segments of two draws with different seeds, mean and least (under the fill
  `noise` the seed draws the noise, too);
* `told`: the same as one draw tells it from its halves (`seed_agreement`), mean;
* `one out`: correlation of the Shapley values with what is lost without each segment;
* `seconds`: median of the processor's time for one photo.

With `--captum`, captum's Kernel SHAP is drawn twice for the same segments and samples, in batches of the same size.
`--results FILE` adds each row to a file, a line of JSON each, and leaves out what is there already. Too few samples
for the segments are refused.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject
from pairx_engine.explanations.recorded import AT_ONCE, partner_held
from pairx_engine.explanations.shapley import agreement
from pairx_engine.explanations.superpixels import KernelShap, OneOut, Superpixels
from pairx_engine.models import ReIdModel, load_model
from pairx_engine.photo.chips import chip_of, decode_photo
from pairx_engine.photo.fills import FILLS
from pairx_engine.photo.value_range import ValueRange

Chips = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """One choice of parameters; correlations are over segments, seconds are of a photo."""

    way: str
    asked: int
    segments: float
    samples: int
    fill: str
    r: float
    least_r: float
    told: float | None
    one_out: float
    seconds: float


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--segments", type=_numbers, default=(20, 35, 60))
    parser.add_argument("--samples", type=_numbers, default=(200, 500, 1000, 2000))
    parser.add_argument("--fills", type=lambda text: tuple(text.split(",")), default=FILLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--captum", action="store_true")
    parser.add_argument("--results", type=Path)
    chosen = parser.parse_args()
    model = load_model(chosen.model)
    pairs = chips_of(model, drawn_pairs(chosen.photos, chosen.pairs, chosen.seed))
    subject = Subject(model.network, str(model.layer), values=ValueRange.of(model.chip))
    ways: dict[str, Callable[..., Row]] = {"ours": measured}
    if chosen.captum:
        ways["captum"] = of_captum
    lines = (
        chosen.results.read_text(encoding="utf-8").splitlines()
        if chosen.results and chosen.results.exists()
        else []
    )
    known = {tuple(row[name] for name in CHOICE) for row in map(json.loads, lines)}
    print(TITLE)
    for count, fill, samples in product(chosen.segments, chosen.fills, chosen.samples):
        method = KernelShap(Superpixels(count, fill=fill), samples)
        for name, way in ways.items():
            if (name, count, samples, fill) in known:
                continue
            try:
                row = way(subject, pairs, method)
                found = asdict(row)
                print(as_line(row), flush=True)
            except EngineError as error:
                found = dict(zip(CHOICE, (name, count, samples, fill), strict=True)) | {"refused": str(error)}
                print(f"{name:8}{count:>6}{'':10}{samples:>9}  {fill:8}{error}", flush=True)
            if chosen.results:
                with chosen.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")


def drawn_pairs(folder: Path, count: int, seed: int) -> list[tuple[Path, Path]]:
    """Pairs of photos, each of one animal, of as many animals."""
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_name: dict[str, list[Path]] = {}
    for row in rows:
        by_name.setdefault(row["identity"], []).append(folder / row["path"])
    rng = np.random.default_rng(seed)
    names = sorted(name for name, photos in by_name.items() if name and len(photos) > 1)
    pairs = []
    for name in rng.permutation(names)[:count]:
        a, b = rng.choice(len(by_name[name]), 2, replace=False)
        pairs.append((by_name[name][a], by_name[name][b]))
    return pairs


def chips_of(model: ReIdModel, pairs: Sequence[tuple[Path, Path]]) -> list[Chips]:
    """Normalised chips of pairs of files."""
    found = []
    for pair in pairs:
        a, b = model.normalise([chip_of(decode_photo(path.read_bytes()), model.chip) for path in pair])
        found.append((a, b))
    return found


def measured(subject: Subject, pairs: Sequence[Chips], method: KernelShap) -> Row:
    """Our values, drawn twice."""
    told: list[float] = []
    seconds: list[float] = []
    values: list[list[np.ndarray]] = []
    for chips in pairs:
        found = []
        for seed in (0, 1):
            start = time.process_time()
            found.append(method.explain(replace(subject, seed=seed), *chips))
            seconds.append((time.process_time() - start) / 2)
        told += found[0].arrays["seed_agreement"].tolist()
        values += [[one.arrays[f"segment_values{side}"] for one in found] for side in (0, 1)]
    return _row("ours", subject, pairs, method, values, told, seconds)


def of_captum(subject: Subject, pairs: Sequence[Chips], method: KernelShap) -> Row:
    """captum's values, drawn twice over our segments."""
    from captum.attr import KernelShap as Theirs

    seconds: list[float] = []
    values: list[list[np.ndarray]] = []
    how = method.superpixels
    for chips in pairs:
        with partner_held(subject, *chips) as cosines:
            for chip, of in zip(chips, cosines, strict=True):
                segments = torch.from_numpy(how.of(subject, chip))[None, None].expand(1, 3, -1, -1)
                values.append([])
                for seed in (0, 1):
                    start = time.process_time()
                    with torch.random.fork_rng(devices=[]), torch.no_grad():
                        torch.manual_seed(seed)
                        found = Theirs(of).attribute(
                            chip[None],
                            baselines=how.filling(replace(subject, seed=seed), chip)[None],
                            feature_mask=segments.contiguous(),
                            n_samples=method.samples,
                            perturbations_per_eval=AT_ONCE,
                            return_input_shape=False,
                        )
                    seconds.append(time.process_time() - start)
                    values[-1].append(found[0].double().numpy())
    return _row("captum", subject, pairs, method, values, [], seconds)


def _row(
    way: str,
    subject: Subject,
    pairs: Sequence[Chips],
    method: KernelShap,
    values: Sequence[Sequence[np.ndarray]],
    told: Sequence[float],
    seconds: Sequence[float],
) -> Row:
    alone = [OneOut(method.superpixels).explain(subject, *chips).arrays for chips in pairs]
    lost = [arrays[f"segment_values{side}"] for arrays in alone for side in (0, 1)]
    seeds = [agreement(np.stack(both)) for both in values]
    return Row(
        way,
        method.superpixels.count,
        fmean(len(one) for one in lost),
        method.samples,
        method.superpixels.fill,
        fmean(seeds),
        min(seeds),
        fmean(told) if told else None,
        fmean(agreement(np.stack([both[0], of])) for both, of in zip(values, lost, strict=True)),
        median(seconds),
    )


CHOICE = ("way", "asked", "samples", "fill")
"""What tells one row from another."""
TITLE = f"{'way':8}{'asked':>6}{'segments':>10}{'samples':>9}  {'fill':8}{'r':>6}{'least':>7}{'told':>7}{'one out':>9}{'seconds':>9}"


def as_line(row: Row) -> str:
    """The row for a terminal."""
    told = "–" if row.told is None else f"{row.told:.2f}"
    return (
        f"{row.way:8}{row.asked:>6}{row.segments:>10.1f}{row.samples:>9}  {row.fill:8}{row.r:>6.2f}{row.least_r:>7.2f}"
        f"{told:>7}{row.one_out:>9.2f}{row.seconds:>9.1f}"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
