"""What a finished run learned of its model and matcher, so that the next one need not load them to plan.

To load a model and explain with it once takes seconds, which is most of what a night without news takes. What is
learned follows from the settings, the files of weights, the packages that compute and our own source; where a hash
of all these is the same, so is what was learned. Files are known by size and change time, as photos are. Workers
load the model all the same before they compute, and refuse other weights than those that were remembered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pairx_engine.local.registry import LOCAL_MATCHERS
from pairx_engine.model_files import locate
from schemas.fingerprints import Fingerprints, fingerprint
from schemas.setting import CATALOGUE, PICTURES, RUNNING, Setting
from schemas.settings import Settings
from tasks.job import Job, prepare_job, with_absolute_paths
from tasks.offers import OURS
from tasks.runs.newest import newest_finished
from tasks.runs.surroundings import COMPUTING, source
from tasks.store.warehouse import Warehouse

_OF_RUNNING = ("batch_size", "photos_per_shard", "pairs_per_shard", "retries", "shard_minutes")
"""Settings without an option that say how a run works, as those of three panels do, and not what it computes."""
_Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,64}$")]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Facts(BaseModel):
    """What a `Job` holds besides its warehouse and settings, with the hash of what it follows from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    follows_from: _Hex
    prints: dict[_Word, _Hex]
    preset: _Word
    layers: list[_Word]
    weights_sha256: _Hex
    chip_size: list[int]
    notice: str | None
    seen_bytes: int


def what_facts_follow_from(settings: Settings) -> str | None:
    """A hash of all that decides what a model and a matcher say of themselves; None where that cannot be told.

    Raises `ModelError` for a model whose files are not there.
    """
    chosen = with_absolute_paths(settings)
    if not {chosen.preset, chosen.matcher} <= OURS or chosen.matcher not in LOCAL_MATCHERS:
        return None  # from outside this package, whose source we do not know
    asked = {
        name: value
        for name, value in chosen.model_dump(mode="json").items()
        if name not in _OF_RUNNING
        and Setting.of(Settings.model_fields[name]).panel not in (RUNNING, CATALOGUE, PICTURES)
    }
    try:
        files = sorted(_stamp(path) for path in _files(chosen))
    except OSError:
        return None
    versions = {package: _version(package) for package in COMPUTING}
    return fingerprint(asked=asked, files=files, versions=versions, source=source())


def _files(settings: Settings) -> Iterator[Path]:
    config, weights = locate(settings.model, settings.model_revision)
    yield from (path for path in (config, weights) if path is not None)
    if settings.matcher_weights is not None:
        yield from (path for path in Path(settings.matcher_weights).iterdir() if path.is_file())


def _stamp(path: Path) -> str:
    found = os.stat(path)
    return f"{path.name}:{found.st_size}:{found.st_mtime_ns}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def facts_of(job: Job) -> str | None:
    """What a run leaves for the next one, JSON; None where it cannot be told what it follows from."""
    if job.follows_from is None:
        return None
    facts = Facts(
        follows_from=job.follows_from,
        prints=asdict(job.prints),
        preset=job.settings.preset,
        layers=list(job.layers),
        weights_sha256=job.weights_sha256,
        chip_size=list(job.chip_size),
        notice=job.notice,
        seen_bytes=job.seen_bytes,
    )
    return facts.model_dump_json()


def known_job(warehouse: Warehouse, settings: Settings) -> Job:
    """The job of these settings: as the newest finished run remembers it, or else by loading model and matcher.

    Raises what `prepare_job` raises.
    """
    row = newest_finished(warehouse)
    found = None if row is None else remembered_job(warehouse, settings, row["engine"])
    if found is not None:
        return found
    follows_from = what_facts_follow_from(settings)
    return replace(prepare_job(warehouse, settings), follows_from=follows_from)


def remembered_job(warehouse: Warehouse, settings: Settings, stored: Any) -> Job | None:
    """The job of these settings by the column `engine` of a finished run; None where it does not fit them.

    Raises `ModelError` for a model whose files are not there, as `prepare_job` does.
    """
    if not isinstance(stored, str):
        return None
    try:
        facts = Facts.model_validate_json(stored)
        prints = Fingerprints(**facts.prints)
    except (ValidationError, TypeError):
        return None
    if (
        len(facts.chip_size) != 2
        or not facts.layers
        or facts.follows_from != what_facts_follow_from(settings)
    ):
        return None
    return Job(
        warehouse,
        with_absolute_paths(settings).model_copy(update={"preset": facts.preset}),
        prints,
        tuple(facts.layers),
        facts.weights_sha256,
        (facts.chip_size[0], facts.chip_size[1]),
        facts.notice,
        facts.seen_bytes,
        facts.follows_from,
    )
