"""Random catalogues and boxes: every decoder soon gives a value or a refusal in words.

``python -m tests.hostile.fuzz`` takes a minute, ``--minutes 60`` an hour; the same properties run briefly in
the default suite. Each round starts from another seed, which a finding prints, so that ``--seed`` repeats it.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import cut_photo, decode_photo
from schemas.catalogue.box_columns import BOX_COLUMNS
from schemas.catalogue.boxes import make_box, parse_number, parse_numbers, to_pixels
from schemas.catalogue.cells import ALIASES, iso_date
from schemas.catalogue.formats.camtrap_dp import READ
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.errors import CatalogueError, PathOutsideRoot, SettingsError
from schemas.foreign_text import neutralised, printable, restored
from schemas.paths import check_relative
from schemas.settings import Settings, load_settings
from tests.poison import encoded

SLOW = 20.0
"""No single input of a few kilobytes takes so many seconds, even on a busy machine."""
EACH = 40
"""Inputs to one property before the next has its turn."""
_WORDS = st.sampled_from(
    [
        "", "a", "Ada", "a.jpg", "../x", "/etc/passwd", "nan", "unknown", "____", "1", "-1", "0.5", "1e999", "[1,2,3,4]", "[0.1,0.2,0.3,0.4]", "[", "array([1 2 3 4])",
        "2024-01-01", "9999-99-99", "\x1b[31m", "\u202e", "=1+1", "'=1", '"', "http://x/a.jpg", "a/b", "zebra", "left", "true", "null", "x" * 600, "\ud800".encode("utf-8", "replace").decode(),
    ]
)  # fmt: skip
_CELLS = st.one_of(_WORDS, st.text(max_size=12), st.floats().map(repr), st.integers().map(str))
_HEADERS = st.sampled_from(
    [*sorted({name for names in ALIASES.values() for name in names} | BOX_COLUMNS), "Encounter.mediaAsset0", "Encounter.mediaAsset1", "Annotation0.bbox", "Annotation0.theta", "Name0.value", "Encounter.genus", "Encounter.year", "Encounter.month", "Encounter.sourceUrl", *READ["media"], *READ["observations"]]
)  # fmt: skip
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), _WORDS, st.text(max_size=8)
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)
_FIELDS = (
    "id", "uuid", "file_name", "image_id", "category_id", "bbox", "identity", "individual_id", "individual_ids", "name", "viewpoint", "theta",
    "seq_id", "encounter_id", "datetime", "corrupt", "sequence_level_annotation",
)  # fmt: skip
_OBJECTS = st.lists(
    st.dictionaries(st.sampled_from(_FIELDS), st.integers(0, 3) | _JSON, max_size=8) | _SCALARS, max_size=5
)
_COCO = st.fixed_dictionaries(
    {"images": _OBJECTS | _JSON, "annotations": _OBJECTS | _JSON}, optional={"categories": _OBJECTS | _JSON}
)
_PATHS = st.sampled_from(
    ["media.csv", "observations.csv", "../m.csv", "/m.csv", "datapackage.json", "m.parquet", ""]
)
_RESOURCES = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["media", "observations", "x"]), "path": _PATHS | _JSON}),
    max_size=4,
)
_TABLES = st.tuples(st.lists(_HEADERS, max_size=8), st.lists(st.lists(_CELLS, max_size=8), max_size=6))


@dataclass(frozen=True)
class Property:
    """What must hold of any input, and where inputs come from."""

    holds: Callable[..., None]
    inputs: tuple[st.SearchStrategy[Any], ...]


PROPERTIES: dict[str, Property] = {}


def decoder(*inputs: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a property under its function's name."""

    def enter(holds: Callable[..., None]) -> Callable[..., None]:
        PROPERTIES[holds.__name__] = Property(holds, inputs)
        return holds

    return enter


def _folder() -> Any:
    return tempfile.TemporaryDirectory(prefix="fuzz")


def _read(name: str, files: dict[str, bytes]) -> None:
    """A catalogue of these files is read or refused, soon."""
    with _folder() as folder:
        for file, data in files.items():
            Path(folder, file).write_bytes(data)
        begun = time.monotonic()
        try:
            read = read_catalogue(str(Path(folder, name)))
            assert isinstance(read, Catalogue)
            assert read.entries
            for entry in read.entries:
                assert Path(folder, entry.path).resolve().is_relative_to(Path(folder).resolve())
                if entry.box is not None and not entry.box_is_relative:
                    to_pixels(entry.box, 10, 10)
        except CatalogueError as error:
            assert error.problems
            assert str(error)
        assert time.monotonic() - begun < SLOW


def _csv(header: list[str], rows: list[list[str]], separator: str, quoted: bool) -> bytes:
    def line(cells: list[str]) -> str:
        return separator.join(f'"{c.replace(chr(34), chr(34) * 2)}"' if quoted else c for c in cells)

    return "\n".join(map(line, [header, *rows])).encode("utf-8", "replace")


@decoder(
    st.binary(max_size=400), st.sampled_from(["c.csv", "c.parquet", "c.json", "datapackage.json", "c.tsv"])
)
def any_bytes(data: bytes, name: str) -> None:
    """Noise under every suffix."""
    _read(name, {name: data})


@decoder(_TABLES, st.sampled_from(",;\t"), st.booleans())
def any_table(table: tuple[list[str], list[list[str]]], separator: str, quoted: bool) -> None:
    """Tables of known columns in any order, with cells of any kind."""
    _read("c.csv", {"c.csv": _csv(*table, separator, quoted)})


@decoder(st.dictionaries(_HEADERS, st.lists(_JSON, min_size=3, max_size=3), min_size=1, max_size=6))
def any_columns(columns: dict[str, list[Any]]) -> None:
    """Parquet whose columns are of any type that Arrow makes of them."""
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError):
            continue
    if not arrays:
        return
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.table(arrays), buffer)
    except (pa.ArrowException, UnicodeEncodeError):
        return  # types that Parquet does not know
    _read("c.parquet", {"c.parquet": buffer.getvalue()})


@decoder(st.integers(0, 10**6), st.integers(1, 4), st.binary(min_size=1, max_size=4))
def any_damage_to_parquet(place: int, count: int, new: bytes) -> None:
    """A sound Parquet file with some bytes changed."""
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(
            {
                "image_id": ["a", "b"],
                "identity": ["A", None],
                "path": ["a.jpg", "b.jpg"],
                "bbox": [[1.0, 2, 3, 4], None],
            }
        ),
        buffer,
    )
    data = bytearray(buffer.getvalue())
    for i in range(count):
        at = (place * (i + 1)) % len(data)
        data[at : at + len(new)] = new
    _read("c.parquet", {"c.parquet": bytes(data)})


@decoder(_COCO)
def any_coco(content: Any) -> None:
    """COCO files whose lists hold objects of known fields with values of any kind."""
    _read("c.json", {"c.json": json.dumps(content).encode()})


@decoder(_RESOURCES | _JSON, _TABLES, _TABLES, _JSON)
def any_camtrap(resources: Any, media: Any, observations: Any, profile: Any) -> None:
    """Camtrap DP packages whose tables hold known columns in any order."""
    package = json.dumps({"resources": resources, "profile": profile}).encode()
    tables = {"media.csv": _csv(*media, ",", True), "observations.csv": _csv(*observations, ",", True)}
    _read("datapackage.json", {"datapackage.json": package, **tables})


@decoder(st.text(alphabet="0123456789.,-+eE[]() ny\tarpfloint64_x", max_size=60) | _CELLS)
def any_box(text: str) -> None:
    """Lists of numbers written as text, and what they make as boxes, dates, paths and cells."""
    try:
        numbers = parse_numbers(text)
        box = make_box(numbers)
        to_pixels(box, 4000, 3000)
    except ValueError as error:
        assert str(error)
    for parse in (parse_number, check_relative):
        try:
            parse(text)
        except (ValueError, PathOutsideRoot) as error:
            assert str(error)
    iso_date(text)
    assert printable(text).isprintable() or set(text) & set("\u00a0\u200c\u200d\u202f")
    assert restored(neutralised("=" + text)) == "=" + text or any(
        ord(c) < 32 or 127 <= ord(c) < 160 for c in text
    )


@decoder(st.lists(st.floats(), min_size=4, max_size=4), st.floats())
def any_cut(box: list[float], theta: float) -> None:
    """Boxes of any numbers, cut from a photo."""
    import numpy as np

    photo = np.zeros((40, 60, 3), np.uint8)
    try:
        assert cut_photo(photo, box, theta).size <= 8 * photo.size
    except PhotoError as error:
        assert error.code in ("box_empty", "box_outside", "too_small")


_FILES = [encoded(form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")] + [
    encoded("PNG", "P"),
    encoded(progressive=True),
]


@decoder(
    st.sampled_from(_FILES),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=6)), max_size=6),
    st.integers(0, 10**6),
)
def any_photo(data: bytes, changes: list[tuple[int, bytes]], cut: int) -> None:
    """Sound photos of every format with some bytes changed, or cut off."""
    changed = bytearray(data)
    for place, new in changes:
        # The first bytes say most, so half of the changes go there.
        at = place % (len(changed) if place % 2 else min(len(changed), 400))
        changed[at : at + len(new)] = new
    if cut % 3 == 0:
        del changed[cut % len(changed) :]
    begun = time.monotonic()
    try:
        assert decode_photo(bytes(changed), 4_000_000).ndim == 3
    except PhotoError as error:
        assert error.code
        assert error.message
    assert time.monotonic() - begun < SLOW


@decoder(st.dictionaries(st.sampled_from([*Settings.model_fields, "x"]), _JSON, max_size=5))
def any_settings(values: dict[str, Any]) -> None:
    """Settings of known names with values of any kind."""
    try:
        assert isinstance(load_settings(overrides=values), Settings)
    except SettingsError as error:
        assert str(error)


def check(name: str, examples: int, number: int | None = None) -> None:
    """Try a property on so many inputs, from seed `number` if one is given.

    Raises what was found, with the input.
    """
    profile = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    # Decorated anew for each round: another seed, other inputs.
    test = profile(given(*PROPERTIES[name].inputs)(PROPERTIES[name].holds))
    (test if number is None else seed(number)(test))()


def main() -> int:
    """Fuzz for some minutes; the exit code is the number of properties that fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    chosen = parser.parse_args()
    numbers = random.Random(chosen.seed)
    end, tried, fallen = time.monotonic() + 60 * chosen.minutes, 0, set()
    while time.monotonic() < end:
        for name in PROPERTIES:
            number = numbers.randrange(2**32)
            try:
                check(name, EACH, number)
            except Exception as error:
                fallen.add(name)
                notes = "\n".join(getattr(error, "__notes__", []))
                print(f"{name} fell (seed {number}): {type(error).__name__}: {error}\n{notes}", flush=True)
            tried += EACH
            if time.monotonic() >= end:
                break
    print(
        f"{tried} inputs to {len(PROPERTIES)} properties, {len(fallen)} fell: {', '.join(sorted(fallen)) or 'none'}"
    )
    return len(fallen)


if __name__ == "__main__":
    raise SystemExit(main())
