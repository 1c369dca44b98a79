"""Settings of a run: defaults, then a TOML file, then the command line; unknown names are refused.

Which of them change numbers, and of which tables, is said in one place: `schemas.fingerprints`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from schemas.errors import SettingsError

PAIRS_PER_SHARD, PAIRS_PER_SHARD_ON_GPU = 96, 2000
"""Each photo of a shard is recorded once more, which larger shards save; smaller ones lose less when a run is stopped. On a CPU
96 pairs take tens of seconds; a GPU should take as long for thousands."""


class Offer(Protocol):
    """The names that a setting may have."""

    def __iter__(self) -> Iterator[str]:
        """All names."""

    def listed(self) -> str:
        """All names with what they mean, as one phrase."""


OFFERS: dict[str, Offer] = {}
"""What settings may name, by the setting. The members live in the engine, which is unknown here: `tasks.offers` enters them."""


class Settings(BaseModel):
    """All settings of a run. Each description is what `pairx settings` prints, before what the setting may name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("embedded", description="embedded, a folder with config.json and weights, or a hub id")
    model_revision: str | None = Field(
        None, description="revision of a hub id; known models are pinned already"
    )
    resize: Literal["pil", "opencv"] | None = Field(
        None, description="resize back end; default: the model's own"
    )
    layers: tuple[str, ...] = Field(
        (), description="layers to explain; the first one ranks. Default: the model's"
    )
    preset: str = Field("published", description="LRP preset")
    reduction: Literal["abs_of_sum", "signed_sum", "sum_of_abs", "positive_sum"] | None = Field(
        None, description="how channel relevances become one number per cell; default: the preset's own"
    )
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = Field(
        "float32",
        description="number format that relevances are computed in; forward passes keep the model's",
    )

    matcher: str = Field("sift", description="independent local matcher for the homography")
    matcher_weights: str | None = Field(
        None, description="folder with the safetensors of a matcher that needs weights"
    )
    view_side: int = Field(
        384, ge=64, le=4096, description="long side, in pixels, of the view that keypoints are found in"
    )
    max_keypoints: int = Field(1024, ge=16, le=16384, description="strongest keypoints kept per photo")
    homography: Literal["magsac", "least_squares"] = Field("magsac", description="homography estimator")
    homography_threshold: float = Field(
        3.0, gt=0, le=100, description="inlier distance in view pixels (magsac)"
    )

    top_k: int = Field(5, ge=1, le=1000, description="nearest photos per photo")
    same_name_k: int = Field(
        2, ge=0, le=1000, description="nearest photos of the same name per photo, besides top-k"
    )
    same_species: bool = Field(False, description="pair photos of one species only (unknown matches all)")
    same_viewpoint: bool = Field(False, description="pair photos of one viewpoint only (unknown matches all)")
    max_pixels: int = Field(
        178_956_970,
        ge=1,
        le=178_956_970,
        description="larger photos are refused before decoding; the default is also the decoder's own limit",
    )

    n_pixel_maps: int = Field(
        10, ge=0, le=100, description="matches propagated back to the pixels in a figure"
    )
    n_lines: int = Field(20, ge=1, le=500, description="match lines drawn in a figure")
    figures: int = Field(40, ge=0, le=5000, description="suspects that get a figure")

    cluster: str = Field(
        "auto",
        description="auto (the GPUs where torch sees any, else the CPU), local (processes on the CPU), cuda (on the GPUs), or "
        "tcp://HOST:PORT of a Dask scheduler",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="worker processes of a cluster on this machine; default: one per core, as memory allows, or one per GPU; "
        "more than there are GPUs share them",
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="chips per forward; default: 8 on CPU, 64 on GPU"
    )
    photos_per_shard: int = Field(64, ge=1, le=100_000, description="photos in one task")
    pairs_per_shard: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description=f"pairs in one task; default: {PAIRS_PER_SHARD} on CPUs, {PAIRS_PER_SHARD_ON_GPU} on GPUs",
    )
    retries: int = Field(2, ge=0, le=20, description="times a failed shard is tried again")

    @field_validator("preset", "matcher", mode="before")
    @classmethod
    def _is_offered(cls, value: object, info: ValidationInfo) -> object:
        names = list(OFFERS.get(str(info.field_name), ()))
        if names and value not in names:
            *others, last = map(repr, names)
            expected = f"{', '.join(others)} or {last}" if others else last
            raise PydanticCustomError("offered", "Input should be {expected}", {"expected": expected})
        return value


def described(name: str) -> str:
    """What a setting means, and what it may name."""
    text = Settings.model_fields[name].description or ""
    return f"{text}: {OFFERS[name].listed()}" if name in OFFERS else text


def load_settings(toml: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Defaults, overlaid by a TOML file's top-level keys, overlaid by `overrides` (None means not given).

    Raises `SettingsError` that lists every bad key with its cure.
    """
    values: dict[str, Any] = {}
    if toml is not None:
        try:
            values.update(tomllib.loads(toml.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise SettingsError(
                f"no settings file at {toml}", "`pairx settings` prints one to start from"
            ) from error
        except OSError as error:
            raise SettingsError(f"{toml} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{toml} is not valid TOML: {error}") from error
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, toml)) from error


def _explain(error: ValidationError, toml: Path | None) -> str:
    lines = [f"the settings{f' in {toml}' if toml else ''} cannot be used:"]
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {name}: no such setting; known are {', '.join(sorted(Settings.model_fields))}")
        else:
            lines.append(f"  {name} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)
