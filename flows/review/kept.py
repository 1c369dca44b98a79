"""Explanations that curators asked for, kept as files of the warehouse, so that a server that starts again has them.

``explained/FINGERPRINT-VERSION/PAIR-METHOD.json``: the fingerprint is that of the newest run's explanations, and the
version that of the program, so another model, setting or program computes anew. A file appears whole or not at all.
It holds pictures, places and words, which are checked when they are read: nothing in it can run.

They are a cache and no table: everything can be computed again, so whatever cannot be read is computed again, no
check looks at them, and any may be deleted. Above `MOST_BYTES` the server removes some, those of other settings first.
"""

from __future__ import annotations

import io
import json
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import PairxError
from schemas.paths import not_a_file
from tasks.store.warehouse import Warehouse

FOLDER = "explained"
MOST_BYTES, MOST_OF_ONE = 256 << 20, 8 << 20
"""Bytes of all files, some 3,000 explanations, and the largest file that is read."""
_FULL = 0.75
"""How full the room is once some were removed."""
_PAIR, _METHOD = r"[0-9a-f]{20}", r"[a-z0-9][a-z0-9_.+]{0,63}"
_NAME = re.compile(rf"(?P<pair>{_PAIR})-(?P<method>{_METHOD})\.json")
_LONGEST_SIDE, _MOST_MATCHES = 8192, 1000
_DIGEST = 32


@dataclass(frozen=True)
class Kept:
    """An explanation as the page draws it: heat of either side as WebP, and places in shares of the cuts."""

    method: str
    about: str
    pictures: Mapping[str, bytes]
    matches: list[dict[str, Any]]
    remarks: list[str]

    def values(self) -> dict[str, Any]:
        """What the page is told; pictures have addresses of their own."""
        return {
            "method": self.method,
            "about": self.about,
            "matches": self.matches,
            "remarks": self.remarks,
            "heat": sorted(self.pictures),
        }


class _Match(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    a: Annotated[list[float], Field(min_length=2, max_length=2)]
    b: Annotated[list[float], Field(min_length=2, max_length=2)]
    share: float
    residual: float | None


class _File(BaseModel):
    """What a file holds after the line with its digest."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    pair: str
    method: str
    about: Annotated[str, Field(max_length=4000)]
    matches: Annotated[list[_Match], Field(max_length=_MOST_MATCHES)]
    remarks: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(max_length=50)]
    heat: list[Literal["a", "b"]]
    pictures: dict[Literal["a", "b"], Base64Bytes]


class KeptFiles:
    """The files of one fingerprint; any thread may use it, and any number of servers beside it."""

    def __init__(self, warehouse: Warehouse, fingerprint: str) -> None:
        self._warehouse = warehouse
        self._folder = f"{FOLDER}/{fingerprint}-{_version()}"
        self._known: dict[str, set[str]] | None = None
        self._held: int | None = None
        self._lock = Lock()

    def of_pair(self, pair_id: str) -> list[str]:
        """Methods by which a pair was explained, as a listing showed it once and by what this server added since."""
        with self._lock:
            if self._known is None:
                self._known = self._listed()
            return sorted(self._known.get(pair_id, ()))

    def read(self, pair_id: str, method: str) -> Kept | None:
        """An explanation; None where there is none, or none that can be read and is what its name says."""
        path = self._path(pair_id, method)
        if path is None:
            return None
        place = f"{self._warehouse.root}/{path}"
        try:
            if self._warehouse.is_local and not_a_file(place):
                return None
            return _decoded(self._warehouse.storage.get(place, 0, MOST_OF_ONE + 1), pair_id, method)
        except (FileNotFoundError, PairxError, OSError, ValueError):
            return None

    def write(self, pair_id: str, kept: Kept) -> bool:
        """Keep an explanation; returns whether that was done: a warehouse that cannot be written to is no fault."""
        path = self._path(pair_id, kept.method)
        data = _encoded(pair_id, kept)
        if path is None or len(data) > MOST_OF_ONE:
            return False
        try:
            self._warehouse.write_file(path, data)
            self.of_pair(pair_id)
            with self._lock:
                assert self._known is not None
                self._known.setdefault(pair_id, set()).add(kept.method)
            self._make_room(path, len(data))
        except (PairxError, OSError):
            return False
        return True

    def _path(self, pair_id: str, method: str) -> str | None:
        name = f"{pair_id}-{method}.json"
        return f"{self._folder}/{name}" if _NAME.fullmatch(name) else None

    def _listed(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        try:
            names = self._warehouse.storage.names(f"{self._warehouse.root}/{self._folder}")
        except (PairxError, OSError):
            names = set()
        for name in map(_NAME.fullmatch, names):
            if name is not None:
                found[name["pair"]].add(name["method"])
        return found

    def _make_room(self, path: str, added: int) -> None:
        """Remove files until there is room, those of other settings first, never the one just written."""
        root, storage = self._warehouse.root, self._warehouse.storage
        with self._lock:
            if self._held is not None and self._held + added <= MOST_BYTES:
                self._held += added
                return
            there = {
                each.removeprefix(f"{root}/"): stored.size
                for each, stored in storage.find(f"{root}/{FOLDER}").items()
                if _NAME.fullmatch(each.rpartition("/")[2])
            }
            self._held = sum(there.values())
            if self._held <= MOST_BYTES:
                return
            gone = []
            for each in sorted(there.keys() - {path}, key=lambda each: (each.startswith(self._folder), each)):
                if self._held <= _FULL * MOST_BYTES:
                    break
                self._held -= there[each]
                gone.append(each)
            storage.remove([f"{root}/{each}" for each in gone])


def _encoded(pair_id: str, kept: Kept) -> bytes:
    """The bytes of a file: the same for the same explanation."""
    pictures = {side: b64encode(data).decode() for side, data in sorted(kept.pictures.items())}
    text = json.dumps(kept.values() | {"pair": pair_id, "pictures": pictures}, sort_keys=True).encode()
    return _digest(text) + b"\n" + text


def _decoded(data: bytes, pair_id: str, method: str) -> Kept:
    """The explanation in a file; raises `ValueError` for anything that `_encoded` does not make."""
    digest, _, text = data.partition(b"\n")
    if len(data) > MOST_OF_ONE or digest != _digest(text):
        raise ValueError("no file of an explanation, or a damaged one")
    try:
        found = _File.model_validate_json(text)
    except (ValidationError, RecursionError) as error:
        raise ValueError("no explanation") from error
    if (found.pair, found.method) != (pair_id, method):
        raise ValueError("the explanation of another pair")
    pictures = {str(side): data for side, data in found.pictures.items()}
    for picture in pictures.values():
        _require_picture(picture)
    matches = [each.model_dump() for each in found.matches]
    return Kept(method, found.about, pictures, matches, list(found.remarks))


def _require_picture(data: bytes) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            if max(image.size) > _LONGEST_SIDE:
                raise ValueError(f"a picture of {image.size} pixels")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError("no picture") from error


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=_DIGEST).hexdigest().encode()


def _version() -> str:
    """8 hex digits of the program's version."""
    try:
        text = version("pairx-pipeline")
    except PackageNotFoundError:
        text = "not installed"
    return blake2b(text.encode(), digest_size=4).hexdigest()
