"""Names: one spelling in every format, words for unknown animals, and names that look like such words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue.reader import Catalogue, CatalogueEntry, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.catalogue.remarks import remarks

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def of_csv(folder: Path, cells: list[str]) -> str:
    path = folder / "c.csv"
    path.write_text(
        "".join(["image_id,identity,path\n", *(f"p{i},{c},{i}.jpg\n" for i, c in enumerate(cells))])
    )
    return str(path)


def of_parquet(folder: Path, cells: pa.Array) -> str:
    ids = [f"p{i}" for i in range(len(cells))]
    table = {"image_id": ids, "identity": cells, "path": [f"{i}.jpg" for i in range(len(cells))]}
    pq.write_table(pa.table(table), folder / "c.parquet")
    return str(folder / "c.parquet")


def of_coco(folder: Path, cells: list[object]) -> str:
    content = {
        "images": [{"id": f"p{i}", "file_name": f"{i}.jpg"} for i in range(len(cells))],
        "annotations": [{"id": i, "image_id": f"p{i}", "identity": cell} for i, cell in enumerate(cells)],
    }
    (folder / "c.json").write_text(json.dumps(content))
    return str(folder / "c.json")


def names(source: str, *unknown: str) -> list[str | None]:
    return [entry.identity for entry in read_catalogue(source, None, Reading(unknown_names=unknown)).entries]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(10**15), 10**15)), min_size=2, max_size=9).filter(any))
def test_a_number_is_one_name_in_every_night(tmp_path: Path, numbers: list[int | None]) -> None:
    """A catalogue may be written by one program tonight and by another tomorrow; no name may change by it."""
    wanted = [None if n is None else str(n) for n in numbers]
    texts = ["" if n is None else str(n) for n in numbers]
    pointed = ["" if n is None else f"{n}.0" for n in numbers]
    floats = [None if n is None else float(n) for n in numbers]
    for cells in (texts, pointed):
        assert names(of_csv(tmp_path, cells)) == wanted
        assert names(of_coco(tmp_path, list(cells))) == wanted
        assert names(of_parquet(tmp_path, pa.array(cells))) == wanted
    for column in (
        pa.array(numbers, pa.int64()),
        pa.array(floats, pa.float64()),
        pa.array(texts).dictionary_encode(),
    ):
        assert names(of_parquet(tmp_path, column)) == wanted
    assert names(of_parquet(tmp_path, pa.array(numbers, pa.decimal128(20, 2)))) == wanted
    for objects in (numbers, floats):
        assert names(of_coco(tmp_path, list(objects))) == wanted


def test_a_persons_own_words_for_unknown(tmp_path: Path) -> None:
    cells = ["new_whale", "Ayo", "NEW_WHALE ", "Unidentified_Individual", "unknown", "new_whale2"]
    source = of_csv(tmp_path, cells)
    assert names(source)[0] == "new_whale"
    found = read_catalogue(source, None, Reading(unknown_names=("new_whale", "unidentified_individual")))
    assert [e.identity for e in found.entries] == [None, "Ayo", None, None, None, "new_whale2"]
    assert "photos whose name is one of --unknown-name, read as unknown animals: 3" in found.warnings
    assert names(of_coco(tmp_path, list(cells)), "new_whale") == [
        None,
        "Ayo",
        None,
        *cells[3:4],
        None,
        cells[5],
    ]


def crowds(counts: list[int]) -> list[str]:
    entries = [
        CatalogueEntry(f"p{k}-{i}", f"{k}-{i}.jpg", f"n{k}") for k, n in enumerate(counts) for i in range(n)
    ]
    return [text for text in remarks(entries) if "--unknown-name" in text]


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([400, *[5] * 100], ["n0"]),
        ([400, 300, *[5] * 100], ["n0", "n1"]),
        ([400, 300, 200, *[5] * 100], ["n0", "n1", "n2"]),
        ([300, *[50] * 12], ["n0"]),
        ([240, *[50] * 12], []),  # less than five times the next
        ([60, *[1] * 1000], []),  # a small share of all
        ([500, 5, 5, 5], []),  # few animals, one of which is seen often
        ([round(1000 / rank) for rank in range(1, 200)], []),  # Zipf's law
        ([10] * 50, []),
    ],
)
def test_names_that_look_like_a_word_for_unknown(counts: list[int], told: list[str]) -> None:
    found = crowds(counts)
    assert bool(found) == bool(told)
    for text in found:
        assert text.endswith("Then give " + " ".join(f"--unknown-name {name}" for name in told))


def test_what_the_remark_proposes_is_one_argument_of_a_shell() -> None:
    entries = [CatalogueEntry(f"u{i}", f"u{i}.jpg", "no name; rm") for i in range(50)]
    entries += [CatalogueEntry(f"p{i}", f"p{i}.jpg", f"n{i}") for i in range(20)]
    (text,) = [text for text in remarks(entries) if "--unknown-name" in text]
    assert text.endswith("--unknown-name 'no name; rm'")
    assert "'no name; rm' (50 photos)" in text


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real catalogues")
def test_no_name_of_a_real_catalogue_is_remarked_on() -> None:
    for place in sorted(SHARED.glob("*/metadata.csv")):
        found: Catalogue = read_catalogue(str(place))
        assert not any("--unknown-name" in text for text in found.warnings), place


def test_a_position_beside_a_viewpoint_fills_its_gaps(tmp_path: Path) -> None:
    write: Callable[[str], int] = (tmp_path / "c.csv").write_text
    write(
        "image_id,identity,path,viewpoint,position\na,x,1.jpg,left,right\nb,x,2.jpg,,right\nc,x,3.jpg,odd,right\n"
    )
    found = read_catalogue(str(tmp_path / "c.csv"))
    assert [e.viewpoint for e in found.entries] == ["left", "right", None]
    assert ("keywords", "position") in found.used
    write("image_id,identity,path,position\na,x,1.jpg,left\n")
    found = read_catalogue(str(tmp_path / "c.csv"))
    assert found.entries[0].viewpoint == "left"
    assert found.used[-1] == ("viewpoint", "position")
