"""What is measured: the cases, their networks, and their photos."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from pairx_engine.models import ReIdModel, build_miewid, load_model
from pairx_engine.models.timm_model import build_timm, describe_timm
from pairx_engine.photo.chips import chip_of, cut_photo, decode_photo
from pairx_engine.toy.animal import SPECIES, Animal, Encounter, Shot, draw_photo

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CALIBRATION_PHOTOS = 16
_CALIBRATED_AT_ONCE = 8
_PHOTOS_PER_ANIMAL = 3
_MOBILENET = "mobilenetv2_100_imagenet"
_CONFIGS: dict[str, dict[str, Any]] = {
    "miewid": {"architecture": "miewid", "input": {"size": [440, 440]}},
    "mobilenet": {
        "architecture": "timm",
        "timm_name": "mobilenetv2_100",
        "timm_kwargs": {"pad_type": "same", "num_classes": 0},
        "input": {"size": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3},
        "explain_layer": "backbone.blocks.3",
    },
}
_SHAPES = {
    "miewid": "MiewID's shape (efficientnetv2_rw_m, GeM, batch-norm neck)",
    "mobilenet": "mobilenetv2_100",
}


@dataclass(frozen=True)
class Case:
    """`task` is `full` (one pair with pixel maps) or `score` (all pairs of a few photos, without)."""

    name: str
    task: str
    network: str


CASES = {
    f"{task}-{network}": Case(f"{task}-{network}", task, network)
    for network in ("miewid", "mobilenet")
    for task in ("full", "score")
}


def prepare(network: str, folder: Path, shared: Path, n_photos: int, size: int | None = None) -> str:
    """Write a model folder with `chips.npy` (n, H, W, 3) for the measured processes to load.

    Returns a title of what it holds. Where `shared` lacks the weights or the photos, random weights and drawn
    photos take their place, and the title says so. `size` overrides the side of the chips, in pixels.
    """
    folder.mkdir(parents=True)
    config = dict(_CONFIGS[network])
    if size is not None:
        config["input"] = {**config["input"], "size": [size, size]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    photos, photographed = _photos(shared, n_photos + CALIBRATION_PHOTOS)
    weights = shared / "models" / _MOBILENET / "model.safetensors"
    real = network == "mobilenet" and weights.is_file()
    if real:
        shutil.copyfile(weights, folder / "model.safetensors")
    else:
        torch.manual_seed(0)
        _save(build_miewid() if network == "miewid" else build_timm(describe_timm(config)), folder)
    model = load_model(folder)
    chips = np.stack([chip_of(photo, model.chip) for photo in photos])
    if not real:
        _calibrate(model, chips[n_photos:])
        _save(model.network, folder)
    np.save(folder / "chips.npy", chips[:n_photos])
    trained = "ImageNet weights" if real else "random weights, batch norms calibrated"
    pixels = " x ".join(map(str, model.chip.size))
    return f"{_SHAPES[network]}, {trained}; layer {model.layer}; {pixels} px; {photographed}"


def prepare_once(network: str, folder: Path, shared: Path, n_photos: int, size: int | None = None) -> str:
    """As `prepare`, but use again what an earlier call has left in `folder`.

    Raises `ValueError` where the folder holds fewer than `n_photos` photos.
    """
    title = folder / "title.txt"
    if not title.is_file():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        (part / title.name).write_text(prepare(network, part, shared, n_photos, size), encoding="utf-8")
        part.rename(folder)
    held = len(np.load(folder / "chips.npy", mmap_mode="r"))
    if held < n_photos:
        raise ValueError(f"{folder} was prepared with {held} photos, not with the {n_photos} asked for")
    return title.read_text(encoding="utf-8")


def load(folder: Path, device: str) -> tuple[ReIdModel, list[Tensor]]:
    """The prepared model and its normalised chips, each (3, H, W)."""
    model = load_model(folder, device)
    return model, list(model.normalise(list(np.load(folder / "chips.npy"))))


def _save(network: nn.Module, folder: Path) -> None:
    save_file(
        {name: t.contiguous() for name, t in network.state_dict().items()}, folder / "model.safetensors"
    )


def _calibrate(model: ReIdModel, chips: NDArray[np.uint8]) -> None:
    """Set the batch norms' statistics to plain averages over a few batches of photos."""
    for module in model.network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    model.network.train()
    with torch.no_grad():
        for batch in model.normalise(list(chips)).split(_CALIBRATED_AT_ONCE):
            model.network(batch)
    model.network.eval()


def _photos(shared: Path, n: int) -> tuple[list[NDArray[np.uint8]], str]:
    """Photos of animals in turn, a few of each, and where they are from; the first two show one animal."""
    catalogue = shared / "data" / "cows" / "metadata.csv"
    if catalogue.is_file():
        return [decode_photo(path.read_bytes()) for path in _cows(catalogue, n)], "photos of OpenCows2020"
    return [_drawn(number) for number in range(n)], "drawn photos"


def _cows(catalogue: Path, n: int) -> list[Path]:
    with catalogue.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["identity"], row["path"]))
    animals: dict[str, list[Path]] = {}
    for row in rows:
        animals.setdefault(row["identity"], []).append(catalogue.parent / row["path"])
    # Spread over each animal's photos: neighbours in the list are frames of one video.
    picked = [
        photos[i * (len(photos) - 1) // (_PHOTOS_PER_ANIMAL - 1)]
        for photos in animals.values()
        for i in range(_PHOTOS_PER_ANIMAL)
    ]
    return picked[:n]


def _drawn(number: int) -> NDArray[np.uint8]:
    animal, shot = divmod(number, _PHOTOS_PER_ANIMAL)
    pattern = sorted(SPECIES)[animal % len(SPECIES)]
    photo = draw_photo(Animal(animal, pattern), Encounter(shot), Shot(shot, "left"))
    return cut_photo(photo.pixels, photo.box)
