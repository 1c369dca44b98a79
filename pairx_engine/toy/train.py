"""Trains the embedded model from scratch on drawn animals.

Run it by `python -m pairx_engine.toy.train --out DIR`. A class is one flank of one animal, and its mirror
image is another class. The loss is ArcFace (Deng et al. 2019, Eq. 3): cross-entropy over s cos(theta + m
[class is the true one]). None of the animals may occur in a drawn catalogue.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from pairx_engine.model_files import EMBEDDED_FOLDER
from pairx_engine.models.miewid import MiewID, build_miewid
from pairx_engine.toy.animal import (
    CATALOGUE_ANIMALS,
    FLANKS,
    TRAINING_ANIMALS,
    Animal,
    DrawnPhoto,
    Encounter,
    Shot,
    draw_photo,
)

CONFIG = EMBEDDED_FOLDER / "config.json"
PATTERN_CYCLE = (
    "spots",
    "stripes",
    "blotches",
    "spots",
    "stripes",
    "blotches",
    "spots",
    "stripes",
    "blotches",
    "plain",
)
MARGIN_PX = 16
"""Pixels kept around each 160 x 160 training chip, so that training can move the box a little."""
SCALE, MARGIN = 24.0, 0.25


@dataclass(frozen=True)
class TrainingSet:
    """Chips to train on and their classes.

    `chips` (N, side, side, 3) uint8 have their margin, `labels` (N,) are the classes of (animal, flank), and
    `classes` is the number of classes.
    """

    chips: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int


def herd(first: int, count: int) -> list[Animal]:
    """`count` training animals numbered from `first` on.

    Raises ValueError if one of them could occur in a drawn catalogue.
    """
    numbers = range(first, first + count)
    if (
        numbers.start not in TRAINING_ANIMALS
        or numbers[-1] not in TRAINING_ANIMALS
        or numbers[0] in CATALOGUE_ANIMALS
    ):
        raise ValueError(
            f"animals {numbers} leave the training range {TRAINING_ANIMALS}; choose another seed"
        )
    return [Animal(number, PATTERN_CYCLE[number % len(PATTERN_CYCLE)]) for number in numbers]


def margin_chip(photo: DrawnPhoto, size: int, margin: int) -> NDArray[np.uint8]:
    """The box of a photo stretched to size x size, with `margin` more pixels on each side.

    Its shape is (size + 2 margin,) * 2 + (3,).
    """
    x, y, w, h = photo.box
    slack_x, slack_y = w * margin / size, h * margin / size
    pad = int(max(slack_x, slack_y)) + 2
    padded = cv2.copyMakeBorder(photo.pixels, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    box = (x + pad - slack_x, y + pad - slack_y, x + w + pad + slack_x, y + h + pad + slack_y)
    side = size + 2 * margin
    return np.asarray(Image.fromarray(padded).resize((side, side), Image.Resampling.BILINEAR, box=box))


def _as_jpeg(photo: DrawnPhoto, quality: int) -> DrawnPhoto:
    buffer = BytesIO()
    Image.fromarray(photo.pixels).save(buffer, "JPEG", quality=quality)
    return DrawnPhoto(np.asarray(Image.open(buffer).convert("RGB")), photo.box)


def _chips_of(animal: Animal, per_flank: int, size: int) -> NDArray[np.uint8]:
    cv2.setNumThreads(1)
    rng = np.random.default_rng([animal.number, 41])
    photos = [
        draw_photo(animal, Encounter(n + per_flank * f), Shot(0, flank))
        for f, flank in enumerate(FLANKS)
        for n in range(per_flank)
    ]
    return np.stack(
        [margin_chip(_as_jpeg(photo, int(rng.integers(50, 96))), size, MARGIN_PX) for photo in photos]
    )


def draw_training_set(animals: list[Animal], per_flank: int, size: int, workers: int) -> TrainingSet:
    """Draw `per_flank` chips of each flank of each animal, each from an encounter of its own."""
    with ProcessPoolExecutor(workers) as pool:
        chips = np.concatenate(
            list(pool.map(partial(_chips_of, per_flank=per_flank, size=size), animals, chunksize=4))
        )
    classes = len(animals) * len(FLANKS)
    return TrainingSet(chips, np.repeat(np.arange(classes), per_flank), classes)


def cached_set(
    path: Path | None, animals: list[Animal], per_flank: int, size: int, workers: int
) -> TrainingSet:
    """As `draw_training_set`, kept in a .npy file between runs when `path` is given."""
    wanted = (len(animals) * len(FLANKS) * per_flank, size + 2 * MARGIN_PX, size + 2 * MARGIN_PX, 3)
    if path is not None and path.exists():
        chips = np.load(path, allow_pickle=False)
        if chips.shape != wanted:
            raise ValueError(
                f"{path} holds chips of shape {chips.shape}, not {wanted}; remove it to draw them again"
            )
        return TrainingSet(
            chips, np.repeat(np.arange(len(animals) * len(FLANKS)), per_flank), len(animals) * len(FLANKS)
        )
    drawn = draw_training_set(animals, per_flank, size, workers)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, drawn.chips)
    return drawn


def _moved(chips: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Windows (N, 3, size, size) of chips with margin (N, 3, S, S).

    Each is the box, shifted, scaled and turned a little.
    """
    n, side = len(chips), chips.shape[-1]
    spread = torch.rand((n, 5), generator=rng) * 2 - 1
    box = (side - 2 * MARGIN_PX) / side
    scale_x, scale_y = box * (1 + 0.06 * spread[:, 0]), box * (1 + 0.06 * spread[:, 1])
    angle = spread[:, 2] * 0.14
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([scale_x * cos, -scale_y * sin, 0.06 * spread[:, 3]], -1),
            torch.stack([scale_x * sin, scale_y * cos, 0.06 * spread[:, 4]], -1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return functional.grid_sample(chips, grid, mode="bilinear", padding_mode="border", align_corners=False)


def augmented(chips: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Training views (N, 3, size, size) in 0..1 of chips with margin.

    Box, light, blur, noise and a covering patch vary.
    """
    views = _moved(chips, size, rng)
    n = len(views)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng) * 2 - 1

    gain = torch.exp(0.25 * uniform(n, 1, 1, 1) + 0.10 * uniform(n, 3, 1, 1))
    views = ((views - 0.5) * torch.exp(0.25 * uniform(n, 1, 1, 1)) + 0.5).clamp(0, 1) * gain
    grey = torch.rand((n, 1, 1, 1), generator=rng) < 0.15
    views = torch.where(grey, views.mean(1, keepdim=True).expand_as(views), views)
    blurred = functional.avg_pool2d(functional.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
    views = torch.where(torch.rand((n, 1, 1, 1), generator=rng) < 0.25, blurred, views)
    views = views + 0.02 * torch.randn(views.shape, generator=rng)
    for i in torch.nonzero(torch.rand(n, generator=rng) < 0.3).flatten().tolist():
        top, left = (torch.rand(2, generator=rng) * size * 0.8).long().tolist()
        high, wide = (torch.rand(2, generator=rng) * size * 0.25 + size * 0.08).long().tolist()
        views[i, :, top : top + high, left : left + wide] = torch.rand((3, 1, 1), generator=rng)
    return views.clamp(0, 1)


def side_at(progress: float, full: int) -> int:
    """Side of the training views.

    Small pictures come first, since they cost less; the last part has the model's own size.
    """
    share = 0.6 if progress < 0.4 else 0.8 if progress < 0.75 else 1.0
    return round(full * share / 16) * 16


def batches(data: TrainingSet, batch: int, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless shuffled (chips with margin (N, 3, S, S) in 0..1, labels).

    Mirrored chips get the classes from `classes` on.
    """
    while True:
        order = torch.randperm(len(data.chips), generator=rng)
        for start in range(0, len(order) - batch + 1, batch):
            chosen = order[start : start + batch].numpy()
            chips = torch.from_numpy(data.chips[chosen]).permute(0, 3, 1, 2).float() / 255
            labels = torch.from_numpy(data.labels[chosen])
            mirrored = torch.rand(batch, generator=rng) < 0.5
            chips = torch.where(mirrored[:, None, None, None], chips.flip(-1), chips)
            yield chips, labels + mirrored * data.classes


def arcface_logits(embeddings: Tensor, centres: Tensor, labels: Tensor, margin: float) -> Tensor:
    """s cos(theta + margin) for the true class and s cos(theta) for the others.

    (N, D), (C, D), (N,) to (N, C). Past theta = pi - margin, where cos(theta + margin) would rise again, the
    usual linear continuation is taken.
    """
    cosine = functional.normalize(embeddings) @ functional.normalize(centres).T
    true = cosine.gather(1, labels[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    turned = torch.cos(torch.acos(true) + margin)
    turned = torch.where(true > np.cos(np.pi - margin), turned, true - margin * float(np.sin(margin)))
    return SCALE * cosine.scatter(1, labels[:, None], turned)


def normalised(views: Tensor, config: Mapping[str, Any]) -> Tensor:
    """The network's input, from views in 0..1."""
    mean, std = (torch.tensor(config["input"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (views - mean) / std


@torch.no_grad()
def rank_one(model: MiewID, data: TrainingSet, config: Mapping[str, Any]) -> float:
    """Share of chips whose nearest other chip, by cosine, shows the same flank of the same animal."""
    model.eval()
    inner = data.chips[:, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    parts = [torch.from_numpy(np.ascontiguousarray(inner[i : i + 64])) for i in range(0, len(inner), 64)]
    rows = torch.cat([model(normalised(part.permute(0, 3, 1, 2).float() / 255, config)) for part in parts])
    cosine = functional.normalize(rows) @ functional.normalize(rows).T
    nearest = cosine.fill_diagonal_(-2).argmax(1).numpy()
    return float((data.labels[nearest] == data.labels).mean())


def save_model(model: MiewID, out: Path) -> None:
    """Write `model.safetensors` and `config.json` into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    (out / "model.safetensors").write_bytes(save(weights))
    if out.resolve() != CONFIG.parent.resolve():
        (out / "config.json").write_text(CONFIG.read_text(encoding="utf-8"), encoding="utf-8")


def _average_into(average: MiewID, model: MiewID, keep: float) -> None:
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


def train(
    out: Path, data: TrainingSet, check: TrainingSet, minutes: float, seed: int, batch: int = 64
) -> float:
    """Train for `minutes` of wall time, and save the running average of the weights as it improves.

    Returns rank-1, measured on the animals of `check`, which are not trained on.
    """
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    model = build_miewid(config).to(memory_format=torch.channels_last)
    average = deepcopy(model)
    centres = nn.Parameter(torch.randn(2 * data.classes, int(config["embedding_dim"])) * 0.05)
    optimiser = torch.optim.AdamW([*model.parameters(), centres], lr=1e-3, weight_decay=0.02)
    rng = torch.Generator().manual_seed(seed)
    source, full = batches(data, batch, rng), int(config["input"]["size"][0])
    started, step, best, next_check = time.monotonic(), 0, 0.0, 0.1
    while (progress := (time.monotonic() - started) / (60 * minutes)) < 1:
        rate = 3e-3 * min(1.0, progress / 0.05 + 0.02) * (0.5 + 0.5 * float(np.cos(np.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        chips, labels = next(source)
        views = augmented(chips, side_at(progress, full), rng)
        model.train()
        embeddings = model(normalised(views, config).to(memory_format=torch.channels_last))
        margin = MARGIN * min(1.0, max(0.0, (progress - 0.1) / 0.3))
        loss = functional.cross_entropy(arcface_logits(embeddings, centres, labels, margin), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*model.parameters(), centres], 5.0)
        optimiser.step()
        step += 1
        _average_into(average, model, min(0.995, 1 - 1 / (step + 1)))
        if progress >= next_check:
            next_check += 0.05
            best = _keep_better(
                average, check, config, out, best, f"{progress:.0%} step {step} loss {loss.item():.3f}"
            )
    return _keep_better(average, check, config, out, best, f"end step {step}")


def _keep_better(
    average: MiewID, check: TrainingSet, config: Mapping[str, Any], out: Path, best: float, when: str
) -> float:
    score = rank_one(average, check, config)
    print(f"{when}: rank-1 {score:.3f} on unseen animals (best {best:.3f})", flush=True)
    if score >= best:
        save_model(average, out)
    return max(best, score)


def main() -> None:
    """Command line: draw the animals, train, write the model."""
    parser = argparse.ArgumentParser(
        description="Train the embedded model from scratch on drawn animals (CPU)."
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for model.safetensors and config.json"
    )
    parser.add_argument("--minutes", type=float, default=25.0, help="wall time of the training itself")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--animals", type=int, default=440)
    parser.add_argument("--chips", type=int, default=6, help="chips per flank")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder where drawn chips are kept between runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = int(json.loads(CONFIG.read_text(encoding="utf-8"))["input"]["size"][0])
    first = TRAINING_ANIMALS.start + 10_000 * options.seed
    sets = []
    for name, animals, chips in (
        ("train", herd(first, options.animals), options.chips),
        ("check", herd(first + 9_000, 40), 4),
    ):
        path = options.cache and options.cache / f"{name}_{animals[0].number}_{len(animals)}_{chips}.npy"
        sets.append(cached_set(path, animals, chips, size, options.threads))
        print(f"{name}: {len(sets[-1].chips)} chips of {len(animals)} animals", flush=True)
    train(options.out, sets[0], sets[1], options.minutes, options.seed)


if __name__ == "__main__":
    main()
