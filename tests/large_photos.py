"""A catalogue of large photos without boxes, and what processing it takes of a process's memory.

`python -m tests.large_photos FOLDER FEW MANY [all]` prints, as JSON, by how many bytes the peak of one
process grows when it goes on from a catalogue of few photos to one of many. There is a number for each stage
that reads every photo; with `all`, for every stage. Another process must have written the catalogues: pixels
that are drawn here would hide what the stages take.
"""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pairx_engine.faithfulness import Protocol
from schemas.settings import Settings
from tasks.evaluation.candidates import sweep_of
from tasks.evaluation.faithfulness import faithfulness_shard, plan_faithfulness
from tasks.evaluation.sweep import plan_sweep, sweep_shard
from tasks.job import prepare_job
from tasks.pairs import Pair
from tasks.shards import peak_bytes
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import TINY, Stages, read_small

_KINDS = 4
_READING = ("ingest", "embed", "retrieve", "score", "verify")
_LATER = ("judge", "flag", "draw")


def write_large_photos(folder: Path, count: int, pixels: int) -> Path:
    """`metadata.csv` of JPEGs of about so many pixels, 3:2, two of each name.

    There are a few pictures: smooth shapes with a camera's grain. Photos of one picture differ in what
    follows the JPEG's end.
    """
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    height = round((pixels / 1.5) ** 0.5)
    width = round(1.5 * height)
    grain = rng.integers(-6, 7, (height, width, 1), dtype=np.int16)
    pictures = []
    for _ in range(min(_KINDS, count)):
        shapes = Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC))
        buffer = io.BytesIO()
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        pictures.append(buffer.getvalue())
    lines = ["image_id,identity,path"]
    for i in range(count):
        (folder / "images" / f"{i:03}.jpg").write_bytes(pictures[i % len(pictures)] + b"%d" % i)
        lines.append(f"p{i:03},n{i // 2},images/{i:03}.jpg")
    metadata = folder / "metadata.csv"
    metadata.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return metadata


def peaks(metadata: Path, warehouse: Path, size: int, every: bool) -> dict[str, int]:
    """The process's peak after each stage, with the catalogue's photos in one shard.

    The stages of an evaluation work on a few pairs.
    """
    settings = Settings(**{**TINY, "photos_per_shard": size, "pairs_per_shard": 1000})
    stages = Stages(prepare_job(Warehouse(str(warehouse)), settings), read_small(metadata))
    found = {}
    for name in (*_READING, *(_LATER if every else ())):
        getattr(stages, f"_{name}")()
        found[name] = peak_bytes()
    if not every:
        return found
    job, photos = stages.job, stages.photos()
    rows = job.warehouse.read("pairs", job.prints.pairs).to_pylist()[: size // 2]
    pairs = [Pair(row["pair_id"], row["photo_a"], row["photo_b"]) for row in rows]
    tried = sweep_of(job, (), {})
    for shard in plan_sweep(pairs, photos, tried, size):
        sweep_shard(job, shard)
    found["sweep"] = peak_bytes()
    listed = [{**vars(pair), "correct": i % 2 == 0} for i, pair in enumerate(pairs[: size // 4])]
    nobody = {pair["pair_id"]: () for pair in listed}
    for shard in plan_faithfulness(listed, nobody, photos, "gradient", Protocol()):
        faithfulness_shard(job, shard)
    found["faithfulness"] = peak_bytes()
    return found


def in_a_thread(work: Callable[[], Any]) -> None:
    """Do it as a worker does, not on the main thread: memory comes from other arenas there.

    Its exception ends the process.
    """
    failed: list[BaseException] = []

    def whole() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=whole)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, every = Path(sys.argv[1]), "all" in sys.argv[4:]
    seen: list[dict[str, int]] = []
    for name in sys.argv[2:4]:
        listed = Path(name)
        size = len(listed.read_text(encoding="utf-8").splitlines()) - 1
        in_a_thread(lambda: seen.append(peaks(listed, place / f"w{size}", size, every)))  # noqa: B023
    last = list(seen[0].values())[-1]
    print(json.dumps({stage: peak - last for stage, peak in seen[1].items()}))
