"""Settings of a run: defaults, then a TOML file, then the command line; unknown names are refused.

A setting is one field, which holds its description, its option, and the tables whose numbers it changes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from schemas.errors import SettingsError, did_you_mean
from schemas.paths import not_a_file
from schemas.setting import CATALOGUE, EVIDENCE, MODEL, PAIRS, PICTURES, RUNNING, Setting, Table

PAIRS_PER_SHARD, PAIRS_PER_SHARD_ON_GPU = 96, 2000
"""Pairs in one shard by default.

Each photo of a shard is recorded once more, which larger shards save; smaller ones lose less when a run is
stopped. On a CPU 96 pairs take tens of seconds; a GPU should take as long for thousands.
"""

MOST_BYTES = 1 << 20
"""Larger files are refused unread, since no file of settings is that large."""


EMBEDDED_NOTICE = (
    "The embedded model was trained on drawn animals. It serves to try the pipeline, not to trust its findings: "
    "name a model for your species with --model (a folder, or a hub id such as conservationxlabs/miewid-msv3)."
)
"""What a user of the default model is told wherever results are shown."""


class Offer(Protocol):
    """The names that a setting may have."""

    def __iter__(self) -> Iterator[str]:
        """All names."""

    def listed(self) -> str:
        """All names with what they mean, as one phrase."""


_QUOTED = re.compile("'([^']*)'")
TABLES = ("evaluate",)
"""Tables of a settings file that hold other options."""
OFFERS: dict[str, Offer] = {}
"""What settings may name, by the setting.

The members live in the engine, which this package must not import: `tasks.offers` enters them.
"""


class Settings(BaseModel):
    """All settings of a run, in the order of the help.

    Each description is what the help and `pairx settings` print.

    Types are strict: `figures = true` is no 1 and `top_k = "5"` no number, but a slip of the pen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    columns: Annotated[tuple[str, ...], Setting(CATALOGUE, option="--column")] = Field(
        (),
        strict=False,  # TOML has lists alone
        description="MEANING=COLUMN: which column of a table holds what, e.g. identity=turtle_id; repeat for several. Goes before "
        "the names that columns are known by. Meanings: image_id, path, identity, encounter, species, date, viewpoint, keywords, "
        "station, theta, and of boxes bbox, x, y, w, h, xmin, ymin, xmax, ymax.",
    )
    strip_prefix: Annotated[str | None, Setting(CATALOGUE)] = Field(
        None,
        description="Folder that absolute paths of another machine begin with, e.g. /data/photos or C:\\photos; the rest of each path "
        "is looked for below the root. Default: only paths below the root may be absolute.",
    )
    encounter_gap: Annotated[float | None, Setting(CATALOGUE)] = Field(
        None,
        gt=0,
        le=1e6,
        description="Minutes. Photos of one station (station, site, location, camera or deployment) that follow each other by less "
        "are one encounter, where the catalogue gives none. Default: no encounters are made.",
    )
    unknown_names: Annotated[tuple[str, ...], Setting(CATALOGUE, option="--unknown-name")] = Field(
        (),
        strict=False,
        description="A word that stands for an unknown animal in the catalogue, e.g. new_whale; repeat for several. unknown, "
        "unidentified, nan and the like are known.",
    )

    model: Annotated[str, Setting(MODEL)] = Field(
        "embedded",
        description="A folder with config.json and safetensors, a weights file, or a hub id such as "
        "conservationxlabs/miewid-msv3. Default: the embedded miniature, which serves to try, not to trust.",
    )
    model_revision: Annotated[str | None, Setting(MODEL)] = Field(
        None, description="Revision of a hub id. Known models are pinned."
    )
    layers: Annotated[tuple[str, ...], Setting(MODEL, option="--layer")] = Field(
        (),
        strict=False,  # TOML has lists alone
        description="Layer to explain, e.g. backbone.blocks.3; repeat for several, the first one ranks. Default: the model's "
        "own. Early layers point exactly, late layers mean more. BLOCK:keys matches by the keys of a vision transformer's block.",
    )
    preset: Annotated[str, Setting(MODEL, part_of=("scores",))] = Field(
        "auto",
        description="LRP preset. cp and attnlrp take gammas, as in cp:linear=0.1:convolution=0.25",
    )
    reduction: Annotated[
        Literal["abs_of_sum", "signed_sum", "sum_of_abs", "positive_sum"] | None,
        Setting(MODEL, part_of=("scores",)),
    ] = Field(
        None,
        description="How the channels' relevances become one number per cell: abs_of_sum, signed_sum, sum_of_abs or "
        "positive_sum (what speaks for the similarity). Default: the preset's own.",
    )
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16", "float16"], Setting(MODEL, part_of=("scores", "measurements"))
    ] = Field(
        "float32",
        description="Number format of relevances: float32 (default), tf32, bfloat16 or float16. The shorter ones are faster "
        "and round; forward passes keep the model's own.",
    )
    resize: Annotated[Literal["pil", "opencv"] | None, Setting(MODEL)] = Field(
        None, description="Resize back end, 'pil' or 'opencv'. Use the one of the model's deployment."
    )

    matcher: Annotated[str, Setting(EVIDENCE)] = Field(
        "sift", description="Independent matcher for the homography"
    )
    matcher_weights: Annotated[str | None, Setting(EVIDENCE)] = Field(
        None, description="Folder with the matcher's safetensors files."
    )
    view_side: Annotated[int, Setting(part_of=("keypoints", "measurements"))] = Field(
        384, ge=64, le=4096, description="Long side, in pixels, of the view that keypoints are found in."
    )
    max_keypoints: Annotated[int, Setting(part_of=("measurements",))] = Field(
        1024, ge=16, le=16384, description="Strongest keypoints kept per photo."
    )
    homography: Annotated[Literal["magsac", "least_squares"], Setting(EVIDENCE, part_of=("scores",))] = Field(
        "magsac", description="Estimator: magsac (robust, default) or least_squares (parity)."
    )
    homography_threshold: Annotated[float, Setting(part_of=("scores", "measurements"))] = Field(
        3.0, gt=0, le=100, description="Inlier distance in view pixels (magsac)."
    )

    top_k: Annotated[int, Setting(PAIRS, part_of=("pairs",))] = Field(
        5, ge=1, le=1000, description="Nearest photos per photo."
    )
    same_name_k: Annotated[int, Setting(PAIRS, part_of=("pairs",))] = Field(
        2, ge=0, le=1000, description="Nearest photos of the same name per photo, besides."
    )
    other_name_k: Annotated[int, Setting(PAIRS, part_of=("pairs",))] = Field(
        2, ge=0, le=1000, description="Nearest photos of other names per photo, besides."
    )
    references: Annotated[int, Setting(part_of=("pairs",))] = Field(
        40,
        ge=0,
        le=10_000,
        description="Random pairs of two names per species: what scores are worth where nothing is alike.",
    )
    neighbours: Annotated[int, Setting()] = Field(
        20,
        ge=0,
        le=1000,
        description="Nearest photos of any, of the same and of other names whose cosines are kept, without scores.",
    )
    same_species: Annotated[
        bool, Setting(PAIRS, option="--same-species/--any-species", part_of=("pairs",))
    ] = Field(False, description="Pair within a species only.")
    same_viewpoint: Annotated[
        bool, Setting(PAIRS, option="--same-viewpoint/--any-viewpoint", part_of=("pairs",))
    ] = Field(False, description="Pair within a viewpoint only.")
    bad_boxes: Annotated[Literal["refuse", "fail"], Setting(CATALOGUE)] = Field(
        "refuse",
        description="What a box that cannot be used does (no area, not a number, pixels among shares): refuse the catalogue "
        "before any work, or let its photo alone fail (bad_box).",
    )
    max_pixels: Annotated[int, Setting(MODEL, part_of=("photos",))] = Field(
        178_956_970,
        ge=1,
        le=1_000_000_000,
        description="Photos of more pixels are refused before decoding, which takes about 8 bytes a pixel.",
    )

    n_pixel_maps: Annotated[int, Setting(part_of=("explanations",))] = Field(
        10, ge=0, le=100, description="Matches propagated back to the pixels in a figure."
    )
    n_lines: Annotated[int, Setting(part_of=("explanations",))] = Field(
        20, ge=1, le=500, description="Match lines drawn in a figure."
    )
    figures: Annotated[int, Setting(PICTURES)] = Field(
        40, ge=0, le=5000, description="Suspects that get a figure."
    )

    cluster: Annotated[str, Setting(RUNNING)] = Field(
        "auto", description="Where the work is done; the kinds of clusters say how they are named."
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], Setting(RUNNING)] = Field(
        "auto",
        description="Device that workers compute on: cpu, cuda, or auto (default: the one of the cluster; on Slurm and "
        "Kubernetes the CPU). With cuda every task asks for a worker that declares the resource GPU.",
    )
    workers: Annotated[int | None, Setting(RUNNING)] = Field(
        None,
        ge=1,
        le=1024,
        description="Worker processes. Default: one per core or GPU; more than there are GPUs share them. Jobs on Slurm and "
        "pods on Kubernetes have to be counted.",
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="Chips per forward. Default: 8 on CPU, 64 on GPU."
    )
    photos_per_shard: int = Field(64, ge=1, le=100_000, description="Photos in one task.")
    pairs_per_shard: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description=f"Pairs in one task. Default: {PAIRS_PER_SHARD} on CPUs, {PAIRS_PER_SHARD_ON_GPU} on GPUs.",
    )
    retries: int = Field(2, ge=0, le=20, description="Times a failed shard is tried again.")
    shard_minutes: float = Field(
        60.0,
        gt=0,
        le=1e6,
        description="A task that takes longer is ended with its worker, cut in halves and tried again, down to the photo that "
        "hangs; of a part, its share of the time, at least one minute. Raise it with the number of photos in a task. Tasks that "
        "cannot be cut, such as retrieval and those of an evaluation, take as long as they take.",
    )

    def part_of(self, table: Table) -> dict[str, Any]:
        """The settings that enter the fingerprint of a table, by name.

        Those that are None are absent: the default is then a part of something else, and what was stored
        before the setting existed stays valid.
        """
        fields = type(self).model_fields.items()
        names = {name for name, field in fields if table in Setting.of(field).part_of}
        return self.model_dump(mode="json", include=names, exclude_none=True)

    @field_validator("preset", "matcher", mode="before")
    @classmethod
    def _is_offered(cls, value: object, info: ValidationInfo) -> object:
        names = list(OFFERS.get(str(info.field_name), ()))
        # A preset may carry parameters behind its name; the engine reads them.
        if names and str(value).partition(":")[0] not in names:
            *others, last = map(repr, names)
            expected = f"{', '.join(others)} or {last}" if others else last
            raise PydanticCustomError("offered", "Input should be {expected}", {"expected": expected})
        return value


def load_settings(toml: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Defaults, overlaid by a TOML file's top-level keys, overlaid by `overrides` (None means not given).

    Tables of the file are for others. Raises `SettingsError` that lists every bad key with its cure.
    """
    values = {name: value for name, value in read_toml(toml).items() if name not in TABLES}
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(explain_errors(error, Settings, toml)) from error


def read_toml(path: Path | None) -> dict[str, Any]:
    """What a settings file holds, unchecked; empty for None. `SettingsError` where it cannot be read."""
    if path is None:
        return {}
    try:
        if (kind := not_a_file(str(path))) and kind != "a folder":
            raise SettingsError(f"{path} is {kind}, no file", "name a TOML file")
        if path.stat().st_size > MOST_BYTES:
            raise SettingsError(f"{path} is larger than {MOST_BYTES >> 20} MiB", "name a file of settings")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"no settings file at {path}", "`pairx settings` prints one to start from"
        ) from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise SettingsError(f"{path} is nested absurdly deep", "`pairx settings` prints one") from error
    except ValueError as error:  # TOML or UTF-8, or a number of more digits than Python reads
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def explain_errors(error: ValidationError, model: type[BaseModel], toml: Path | None) -> str:
    """Every bad key of a model with its error, a line each."""
    lines = [f"the settings{f' in {toml}' if toml else ''} cannot be used:"]
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            shown = name if name.isidentifier() and len(name) < 80 else _shown(name)
            known = sorted(model.model_fields)
            near = did_you_mean(name, known)
            listed = f"{near} Known are" if near else "; known are"
            lines.append(f"  {shown}: no such setting{listed} {', '.join(known)}")
        elif name:
            offered = _QUOTED.findall(str(problem.get("ctx", {}).get("expected", "")))
            near = did_you_mean(str(problem["input"]), offered)
            lines.append(f"  {name} = {_shown(problem['input'])}: {problem['msg']}{near}")
        else:
            lines.append(f"  {problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
