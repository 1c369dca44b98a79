"""The device of a process: settled before anything is done on it, whatever stage asks first."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pairx_engine import engine
from pairx_engine.device import accelerator
from schemas.errors import AcceleratorFailure
from schemas.tables.registry import GALLERIES
from tasks import job as module
from tasks import vectors as vectors_module
from tasks.gallery import Gallery
from tasks.job import Job, device, matcher_of, model_of
from tasks.retrieval.kept import keep_gallery
from tasks.retrieval.plan import ask_all
from tasks.stages.retrieve import retrieve_shard


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.device]]:
    """Devices that were settled, in a process that has not asked for one yet."""
    found: list[torch.device] = []
    monkeypatch.setattr(accelerator, "settle", found.append)
    device.cache_clear()
    yield found
    device.cache_clear()


def test_the_device_is_settled_once(settled: list[torch.device]) -> None:
    assert device() == device() == torch.device("cpu")
    assert settled == [torch.device("cpu")]


@pytest.mark.parametrize("first", [model_of, matcher_of, lambda job: job.batch_size])
def test_whatever_is_asked_for_first_settles_the_device(
    first: Any, job: Job, settled: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_model", lambda *_: settled.append("model") or model)  # type: ignore[func-returns-value]
    monkeypatch.setattr(engine, "_matcher", lambda *_: settled.append("matcher"))
    model = type("Model", (), {"weights_sha256": job.weights_sha256})()
    first(job)
    assert settled[0] == torch.device("cpu")


def test_retrieval_settles_the_device_though_it_loads_no_model(
    job: Job, settled: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"photo_id": name, "chip_id": name, "perceptual_hash": 0} for name in "abc"]
    gallery = Gallery(pa.Table.from_pylist(rows, schema=GALLERIES.schema))
    keep_gallery(job, gallery)
    vectors = torch.eye(3, 4).half() + 0.1
    stored = vectors_module.Vectors(vectors.numpy(), np.ones(3, dtype=bool))
    monkeypatch.setattr(vectors_module, "_vectors", lambda *_: stored)
    (shard,) = ask_all(gallery).shards()
    assert len(retrieve_shard(job, shard).query) == 6
    assert settled == [torch.device("cpu")]


def test_nobody_asks_torch_for_a_device_behind_its_back() -> None:
    source = inspect.getsource(module)
    assert source.count("cuda.is_available") == 1


@pytest.mark.parametrize("given", ["0", "GPU-6c1b", "1,2"])
def test_a_process_that_lost_its_gpus_does_not_go_on_with_the_cpu(
    given: str, settled: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    with pytest.raises(AcceleratorFailure, match=given):
        device()
    assert settled == []


@pytest.mark.parametrize(("given", "built"), [("", True), ("-1", True), ("0", False)])
def test_a_process_without_gpus_takes_the_cpu(
    given: str, built: bool, settled: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    assert device() == torch.device("cpu")
