"""Where the files of a model lie: in this package, a folder, a file, or a hub's cache. Imports no torch."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from pairx_engine.errors import ModelError

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).resolve().parent / "models" / "embedded"
PINNED_REVISIONS = {"conservationxlabs/miewid-msv3": "4f1d7f2b521149e5fe34bb85f377248ce9971a7d"}
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_TO_ANSWER = 5.0
"""Seconds within which the hub must take a connection."""


def locate(source: str, revision: str | None) -> tuple[Path | None, Path]:
    """The config.json of a model, if it has one, and its weights; a hub's are fetched into the hub client's cache.

    `source` and `revision` are those of `pairx_engine.models.load_model`. Raises `ModelError` where there are none.
    """
    folder = EMBEDDED_FOLDER if source == EMBEDDED else _path(source)
    if folder.is_dir():
        weights = next((folder / name for name in _WEIGHT_FILES if (folder / name).is_file()), None)
        config = folder / "config.json"
        if weights is None:
            neither = "" if config.is_file() else ", and no config.json either"
            raise ModelError(f"{folder} has no weights; expected one of {', '.join(_WEIGHT_FILES)}{neither}")
        return (config if config.is_file() else None), weights
    if folder.is_file():
        config = folder.parent / "config.json"
        return (config if config.is_file() else None), folder
    if _means_a_place(source):
        raise ModelError(
            f"no model at {source!r}: no folder at {folder.absolute()}; name an existing folder, a weights file, or a hub id "
            "like owner/name"
        )
    return _fetch(source, revision or PINNED_REVISIONS.get(source))


def _means_a_place(source: str) -> bool:
    """Whether a name, at which there is nothing, is a mistyped path and no hub id."""
    owner, _, name = source.partition("/")
    return not name or "/" in name or "\\" in source or source[0] in ".~" or Path(owner).is_dir()


def _path(source: str) -> Path:
    """The source as a path, whether or not it exists; raises `ModelError` where it cannot be a path."""
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"no model at {source[:120]!r}: {error.__class__.__name__}") from error
    return path


def _fetch(hub_id: str, revision: str | None) -> tuple[Path | None, Path]:
    """Fetch a hub model's config and weights (never its code) through the hub client's cache."""
    for name in _WEIGHT_FILES:
        # One kind of weights at a time, since many repositories hold the same weights twice.
        folder = _snapshot(hub_id, revision, ["config.json", name])
        if (folder / name).is_file():
            config = folder / "config.json"
            return (config if config.is_file() else None), folder / name
    raise ModelError(
        f"{hub_id!r} offers none of {', '.join(_WEIGHT_FILES)}; fetch its weights and name their folder"
    )


def _snapshot(hub_id: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    only_kept = not _hub_answers()
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=patterns,
                max_workers=2,
                local_files_only=only_kept,
            )
        )
    except HFValidationError as error:
        raise ModelError(f"{hub_id!r} is neither a folder nor a valid hub id: {error}") from error
    except Exception as error:  # the client raises a different family for each kind of network failure
        raise ModelError(
            f"{hub_id!r} (revision {revision or 'newest'}) could not be fetched: {type(error).__name__}"
            f"{', and the hub does not answer' * only_kept}. Check the name and the network; without network, copy config.json and model.safetensors into a folder and name it: --model FOLDER"
        ) from error


def _hub_answers() -> bool:
    """Whether a connection to the hub can be made, where no proxy makes it.

    Without one the client would try each request six times, for half a minute, before it looks at its cache.
    """
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    if getproxies():
        return True
    try:
        socket.create_connection((place.hostname or "", place.port or 443), _TO_ANSWER).close()
    except OSError:
        return False
    return True
