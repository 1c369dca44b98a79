"""A box that cannot be used stops the catalogue, or fails its photo alone where that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.errors import CatalogueError

GOOD = "10,20,30,40"


def table(folder: Path, *boxes: str, header: str = "x,y,w,h") -> str:
    lines = [f"image_id,identity,path,{header}"]
    lines += [f"{i},Ayo,{i}.jpg,{box}" for i, box in enumerate(boxes)]
    (folder / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "table.csv")


def bad(catalogue: Catalogue) -> dict[str, str]:
    return {e.photo_id: e.bad_box for e in catalogue.entries if e.bad_box is not None}


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ("1,2,0,40", "box [1, 2, 0, 40] has no area: w and h must be positive"),
        ("1,2,30,-4", "box [1, 2, 30, -4] has no area: w and h must be positive"),
        ("1,nan,30,40", "box [1, nothing, 30, 40] has a missing or infinite number"),
        ("1,2,30,", "box [1, 2, 30, nothing] has a missing or infinite number"),
        ("1,2,wide,40", "'wide' is not a number"),
        ("0.1,0.2,0.3,0.4", "box (0.1, 0.2, 0.3, 0.4) looks like shares, unlike the other 20"),
    ],
)
def test_one_bad_box_among_many(tmp_path: Path, box: str, says: str) -> None:
    source = table(tmp_path, *[GOOD] * 20, box)
    with pytest.raises(CatalogueError, match=r"row 22.*\n.*--bad-boxes fail") as refused:
        read_catalogue(source)
    assert [problem.what for problem in refused.value.problems] == [says]
    catalogue = read_catalogue(source, reading=Reading(bad_boxes="fail"))
    assert bad(catalogue) == {"20": says}
    assert [e.box for e in catalogue.entries if e.photo_id != "20"] == [(10, 20, 30, 40)] * 20
    (remark,) = (each for each in catalogue.warnings if each.startswith("boxes that cannot be used"))
    assert remark.startswith("boxes that cannot be used, whose photos will fail: 1 (first: row 22, column ")
    assert remark.endswith(f": {says})")


@pytest.mark.parametrize(
    ("boxes", "header"),
    [
        (["1,2,0,4"] * 3, "x,y,w,h"),
        (["0.1,0.2,0.3,0.4", "1,2,3,4", "0.1,0.2,0.1,0.4", "5,6,7,8"], "x,y,w,h"),
        ([GOOD] * 3, "x,y,w,height"),
    ],
    ids=["none is good", "half are shares", "no such columns"],
)
def test_what_is_wrong_with_all_boxes_stops_the_catalogue(
    tmp_path: Path, boxes: list[str], header: str
) -> None:
    with pytest.raises(CatalogueError):
        read_catalogue(table(tmp_path, *boxes, header=header), reading=Reading(bad_boxes="fail"))


@pytest.mark.parametrize("header", ["x,y,w,h", "rel_x,rel_y,rel_w,rel_h", "x1,y1,x2,y2"])
@pytest.mark.parametrize("nothing", ["-1,-1,-1,-1", "-1.0,-1.0,-1.0,-1.0"])
def test_no_detection_is_no_box(tmp_path: Path, header: str, nothing: str) -> None:
    catalogue = read_catalogue(table(tmp_path, nothing, "0.1,0.2,0.3,0.4", ",,,", header=header))
    assert [e.box is None for e in catalogue.entries] == [True, False, True]
    assert (
        "boxes -1, -1, -1, -1 (a detector found nothing) are no boxes, so these whole photos are compared: 1"
        in catalogue.warnings
    )


def test_lists_of_shares_that_leave_the_photo_are_bad_alone(tmp_path: Path) -> None:
    source = table(tmp_path, '"[0.1, 0.2, 0.3, 0.4]"', '"[0.1, 0.2, 1.3, 0.4]"', '"[-1, -1, -1, -1]"', header="bbox_relative")  # fmt: skip
    catalogue = read_catalogue(source, reading=Reading(bad_boxes="fail"))
    assert bad(catalogue) == {"1": "box (0.1, 0.2, 1.3, 0.4) is larger than the photo"}
    assert [e.box_is_relative for e in catalogue.entries] == [True, False, False]
