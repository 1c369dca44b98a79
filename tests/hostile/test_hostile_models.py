"""Hostile model folders: nothing in them runs or hangs, and what does not fit is refused in words."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pairx_engine.errors import EngineError, ModelError
from pairx_engine.local.registry import LOCAL_MATCHERS
from pairx_engine.model_files import EMBEDDED_FOLDER
from pairx_engine.models import load_model

WEIGHTS = EMBEDDED_FOLDER / "model.safetensors"
CONFIG: dict[str, Any] = json.loads((EMBEDDED_FOLDER / "config.json").read_text())
BUILT: dict[str, Any] = CONFIG["backbone"]


class Payload:
    """What a pickle would run: it would leave a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def state() -> dict[str, torch.Tensor]:
    return dict(load_file(WEIGHTS))


def altered(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    found = state()
    name = next(key for key, value in found.items() if value.ndim == 4)
    return found | {name: change(found[name]).contiguous()}


def saved(made: Callable[[], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    return lambda folder: save_file(made(), folder / "model.safetensors")


def torn(data: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(data(WEIGHTS.read_bytes()))


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def pickled(make: Callable[[Path], Any], name: str = "pytorch_model.bin") -> Callable[[Path], object]:
    return lambda folder: torch.save(make(folder), folder / name)


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "model.safetensors")


def _raw_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(folder / "owned")))


WEIGHT_CASES: dict[str, Callable[[Path], object]] = {
    "no weights": lambda folder: None,
    "a pipe for weights": _fifo,
    "a device for weights": lambda folder: (folder / "model.safetensors").symlink_to("/dev/zero"),
    "a folder for weights": lambda folder: (folder / "model.safetensors").mkdir(),
    "a link to itself for weights": lambda folder: (folder / "model.safetensors").symlink_to("model.safetensors"),
    "no bytes": torn(lambda data: b""),
    "seven bytes": torn(lambda data: data[:7]),
    "a header cut off": torn(lambda data: data[:100]),
    "weights cut off": torn(lambda data: data[:-100]),
    "bytes behind the weights": torn(lambda data: data + bytes(100)),
    "a header of 2^63 bytes": torn(lambda data: header(b"{}", 2**63)),
    "a header of 99 MB that is not there": torn(lambda data: header(b"{}", 99_000_000)),
    "a header of 30 MB of brackets": torn(lambda data: header(b"[" * 30_000_000)),
    "a header that is no JSON": torn(lambda data: header(b"not json")),
    "a header of no tensors": torn(lambda data: header(b"{}")),
    "a tensor of 2^60 numbers": torn(lambda data: header(b'{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}') + bytes(4)),
    "a tensor of overflowing shape": torn(lambda data: header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}')),
    "tensors that overlap": torn(lambda data: header(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}') + bytes(4)),
    "offsets that run backwards": torn(lambda data: header(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}') + bytes(4)),
    "an unknown type": torn(lambda data: header(b'{"a":{"dtype":"F1","shape":[4],"data_offsets":[0,4]}}') + bytes(4)),
    "whole numbers": saved(lambda: altered(lambda value: (value * 100).to(torch.int32))),
    "bytes for numbers": saved(lambda: altered(lambda value: value.to(torch.uint8))),
    "truth values": saved(lambda: altered(lambda value: value > 0)),
    "complex numbers": saved(lambda: altered(lambda value: value.to(torch.complex64))),
    "NaN": saved(lambda: altered(lambda value: value * torch.nan)),
    "one infinity": saved(lambda: altered(lambda value: value.index_fill(0, torch.tensor([0]), torch.inf))),
    "infinity in 8 bits": saved(lambda: altered(lambda value: (value * 1e9).to(torch.float8_e5m2))),
    "a wrong shape": saved(lambda: altered(lambda value: value[..., :1, :1])),
    "a flat shape": saved(lambda: altered(lambda value: value.flatten())),
    "one weight missing": saved(lambda: dict(list(state().items())[1:])),
    "one weight too many": saved(lambda: state() | {"backbone.evil": torch.zeros(3)}),
    "a weight with an evil name": saved(lambda: state() | {"../../\x1b[31m": torch.zeros(3)}),
    "no weight of them all": saved(lambda: {"a": torch.zeros(3)}),
    "a pickle that runs": _raw_pickle,
    "an archive that runs": pickled(lambda folder: {"state_dict": Payload(folder / "owned")}),
    "an archive of a module": pickled(lambda folder: torch.nn.Linear(2, 2)),
    "an archive of a list": pickled(lambda folder: [torch.zeros(3)]),
    "an archive of numbers": pickled(lambda folder: {"a": 1}),
    "an archive in itself": pickled(lambda folder: {"model": {"model": {"model": 3}}}),
    "sparse weights": pickled(lambda folder: altered(lambda value: value).copy() | _sparse()),
    "a zip that is no archive": lambda folder: (folder / "pytorch_model.bin").write_bytes(b"PK\x05\x06" + bytes(18)),
    "text for an archive": lambda folder: (folder / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
}  # fmt: skip


def _sparse() -> dict[str, torch.Tensor]:
    name, value = next((key, value) for key, value in state().items() if value.ndim == 4)
    return {name: value.to_sparse()}


def refused(source: Path | str) -> str:
    with pytest.raises(ModelError) as error:
        load_model(source)
    assert len(str(error.value)) < 5000
    return str(error.value)


@pytest.mark.parametrize("name", WEIGHT_CASES)
def test_hostile_weights_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    WEIGHT_CASES[name](tmp_path)
    refused(tmp_path)
    assert not (tmp_path / "owned").exists()


CONFIGS: dict[str, Any] = {
    "a list": [],
    "a text": "miewid",
    "nothing": None,
    "no architecture that exists": {"architecture": "timm", "timm_name": "no_such_model"},
    "a name that is fetched": {"architecture": "timm", "timm_name": "hf-hub:owner/name"},
    "a name that is a path": {"architecture": "timm", "timm_name": "local-dir:/etc"},
    "a name that is a list": {"architecture": "timm", "timm_name": ["resnet18"]},
    "a name that is missing": {"architecture": "timm"},
    "code of its own": {"architecture": "timm", "timm_name": "resnet18", "auto_map": {"AutoModel": "evil.Model"}},
    "arguments that are no object": {"architecture": "timm", "timm_name": "resnet18", "timm_kwargs": [1]},
    "arguments that nobody knows": {"architecture": "timm", "timm_name": "resnet18", "timm_kwargs": {"evil": 1}},
    "a checkpoint elsewhere": {"architecture": "timm", "timm_name": "resnet18", "timm_kwargs": {"checkpoint_path": "/etc/passwd"}},
    "a network of a billion channels": {"architecture": "timm", "timm_name": "vit_tiny_patch16_224", "timm_kwargs": {"embed_dim": 999_999_999}},
    "a network of 2^60 channels": {"architecture": "timm", "timm_name": "vit_tiny_patch16_224", "timm_kwargs": {"embed_dim": 2**60}},
    "a network far larger than its weights": {"architecture": "timm", "timm_name": "convnext_large"},
    "pictures of no size": CONFIG | {"input": {"size": [0, 0]}},
    "pictures of a negative size": CONFIG | {"input": {"size": [-64, -64]}},
    "pictures of a million pixels a side": CONFIG | {"input": {"size": [1_000_000, 1_000_000]}},
    "pictures of three sides": CONFIG | {"input": {"size": [64, 64, 64]}},
    "pictures of words": CONFIG | {"input": {"size": "ab"}},
    "input that is a list": CONFIG | {"input": [1]},
    "a mean that is no number": CONFIG | {"input": {"mean": [float("nan")] * 3}},
    "an infinite mean": CONFIG | {"input": {"mean": [float("inf")] * 3}},
    "a spread of nothing": CONFIG | {"input": {"std": [0, 0, 0]}},
    "a spread that is no number": CONFIG | {"input": {"std": [float("nan")] * 3}},
    "two channels": CONFIG | {"input": {"mean": [0.5, 0.5]}},
    "pooling by NaN": CONFIG | {"pool": {"eps": float("nan")}},
    "pooling in words": CONFIG | {"pool": {"eps": "small"}},
    "a backbone of no blocks": CONFIG | {"backbone": {**BUILT, "arch_def": []}},
    "a backbone of evil blocks": CONFIG | {"backbone": {**BUILT, "arch_def": [["__import__('os')"]]}},
    "a backbone of a million layers": CONFIG | {"backbone": {**BUILT, "arch_def": [["er_r1000000_k3_s1_e1_c16"]]}},
    "a stem of a billion channels": CONFIG | {"backbone": {**BUILT, "stem_size": 1_000_000_000}},
    "a negative stem": CONFIG | {"backbone": {**BUILT, "stem_size": -8}},
    "features of a billion": CONFIG | {"backbone": {**BUILT, "num_features": 1_000_000_000}},
    "an activation that is no name": CONFIG | {"backbone": {**BUILT, "act_layer": "os.system"}},
    "a backbone in words": CONFIG | {"backbone": "all of it"},
    "a layer that is a list": CONFIG | {"explain_layer": ["a"]},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_descriptions_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors").symlink_to(WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    refused(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"architecture": ' + b"9" * 5000 + b"}",
        b'{"a":' * 50_000,
        b"\x00",
    ],
    ids=["nothing", "cut off", "UTF-16", "brackets", "5000 digits", "objects", "a zero byte"],
)
def test_a_description_that_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").symlink_to(WEIGHTS)
    (tmp_path / "config.json").write_bytes(data)
    refused(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "/",
        "/dev/zero",
        "/etc/passwd",
        "../..",
        "a/b/c",
        "~nobody/x",
        "\x00",
        "x" * 5000,
        "https://a.b/c",
        "a\n/b",
    ],
)
def test_a_source_that_is_no_model_is_refused(source: str) -> None:
    refused(source)


@pytest.mark.parametrize(
    "name", ["a pipe", "a folder", "a pickle", "whole numbers", "NaN", "another network's", "no bytes"]
)
def test_hostile_weights_of_a_matcher_are_refused(tmp_path: Path, name: str) -> None:
    matcher = LOCAL_MATCHERS["disk+lightglue"]
    for file in ("disk_depth.safetensors", "disk_lightglue.safetensors"):
        place = tmp_path / file
        match name:
            case "a pipe":
                os.mkfifo(place)
            case "a folder":
                place.mkdir()
            case "a pickle":
                place.write_bytes(pickle.dumps(Payload(tmp_path / "owned")))
            case "whole numbers":
                save_file({"a": torch.ones(3, dtype=torch.int32)}, place)
            case "NaN":
                save_file({"a": torch.full((3,), torch.nan)}, place)
            case "another network's":
                place.symlink_to(WEIGHTS)
            case "no bytes":
                place.touch()
    with pytest.raises(EngineError):
        matcher.load(tmp_path, "cpu", 64)
    assert not (tmp_path / "owned").exists()
