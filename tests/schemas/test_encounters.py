"""Encounters from a column `video`, and from station and time, beside a naive oracle."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue.encounters import by_gap, moment_of
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.catalogue.summary import said_of
from schemas.errors import CatalogueError

Read = Callable[..., Catalogue]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(*lines: str, gap: float | None = None) -> Catalogue:
        path = tmp_path / "c.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return read_catalogue(str(path), None, Reading(encounter_gap=gap))

    return read


def encounters(catalogue: Catalogue) -> list[str | None]:
    return [entry.encounter for entry in catalogue.entries]


START = datetime(2024, 5, 31, 12)
SHOTS = st.lists(
    st.tuples(
        st.sampled_from([None, "A", "B"]),
        st.one_of(st.none(), st.integers(0, 40)),
        st.sampled_from([None, None, None, "given"]),
    ),
    max_size=14,
)


@given(SHOTS, st.integers(1, 9))
def test_photos_are_together_exactly_where_a_chain_of_short_steps_joins_them(
    shots: list[tuple[str | None, int | None, str | None]], gap: int
) -> None:
    """Oracle: i and j are one encounter if no two successive moments of their station between them are far."""
    times = [None if m is None else (START + timedelta(minutes=m)).isoformat() for _, m, _ in shots]
    given_, stations = [e for _, _, e in shots], [s for s, _, _ in shots]
    found, note = by_gap(given_, stations, times, gap)
    taking_part = [i for i, (s, m, e) in enumerate(shots) if s is not None and m is not None and e is None]
    for i in range(len(shots)):
        assert (found[i] is None) == (i not in taking_part and given_[i] is None)
        assert given_[i] is None or found[i] == given_[i]
    for i in taking_part:
        for j in taking_part:
            (a, start, _), (b, end, _) = shots[i], shots[j]
            between = sorted(
                shots[k][1]
                for k in taking_part
                if shots[k][0] == a and min(start, end) <= shots[k][1] <= max(start, end)
            )
            joined = a == b and all(later - earlier < gap for earlier, later in pairwise(between))
            assert (found[i] == found[j]) == joined
    made = {found[i] for i in taking_part}
    assert note.startswith(
        f"encounters made from station and time, {gap} minutes apart: {len(made)}, of {len(taking_part)} photos"
    )


def test_encounters_are_made_where_none_is_given(read: Read) -> None:
    catalogue = read(
        "image_id,identity,path,Site,DateTime,encounter",
        "a,x,1.jpg,S1,2024-05-31 12:00:00,",
        "b,x,2.jpg,S1,2024:05:31 12:04:59,",
        "c,x,3.jpg,S1,31.05.2024 12:10,",
        "d,x,4.jpg,S2,2024-05-31T12:01:00+00:00,",
        "e,x,5.jpg,S1,2024-05-31 12:02:00,e9",
        "f,x,6.jpg,S1,2024-05-31,",
        "g,x,7.jpg,,2024-05-31 12:02:00,",
        gap=5,
    )
    first, last = "S1 2024-05-31T12:00:00", "S1 2024-05-31T12:10:00"
    assert encounters(catalogue) == [first, first, last, "S2 2024-05-31T12:01:00+00:00", "e9", None, None]
    assert (
        "encounters made from station and time, 5 minutes apart: 3, of 4 photos; 2 photos without a station or a time "
        "of day have no encounter"
    ) in catalogue.warnings
    assert ("station", "Site") in catalogue.used
    assert catalogue.kept == ("Site",)


def test_a_made_name_is_not_a_given_one() -> None:
    found, _ = by_gap(["A 2024-05-31T12:00:00", None], ["A", "A"], ["2024-05-31T12:00:00"] * 2, 5)
    assert found == ["A 2024-05-31T12:00:00", "A 2024-05-31T12:00:00 (by time)"]


def test_times_of_two_zones_are_compared() -> None:
    assert moment_of("2024-05-31T12:00:00+02:00") == moment_of("2024-05-31T10:00:00")
    assert [moment_of(text) for text in (None, "2024-05-31", "2024", "at 12:00")] == [None] * 4


def test_what_is_lacking_is_told(read: Read) -> None:
    with pytest.raises(CatalogueError) as error:
        read("image_id,identity,path", "a,x,1.jpg", gap=5)
    assert [(p.where, p.cure.partition("=")[0]) for p in error.value.problems] == [
        ("--encounter-gap", "say which it is, as --column station"),
        ("--encounter-gap", "say which it is, as --column date"),
    ]
    catalogue = read("image_id,identity,path,encounter", "a,x,1.jpg,e1", gap=5)  # nothing is to be made
    assert encounters(catalogue) == ["e1"]


def test_a_column_video_is_an_encounter(read: Read) -> None:
    rows = ("a,x,1.jpg,v1", "b,x,2.jpg,v1", "c,y,3.jpg,v2", "d,y,4.jpg,")
    catalogue = read("image_id,identity,path,Video", *rows)
    assert encounters(catalogue) == ["v1", "v1", "v2", None]
    assert (
        "column Video is read as encounter, since no column gives encounters: 2 videos" in catalogue.warnings
    )
    assert ("encounter", "Video") in catalogue.used
    assert catalogue.kept == ()
    beside = read("image_id,identity,path,Video,seq_id", *(f"{row},s" for row in rows))
    assert (encounters(beside), beside.kept) == (["s"] * 4, ("Video",))


@pytest.mark.parametrize(
    ("videos", "why"),
    [
        (("0", "1", "1", "0"), "it numbers no videos"),
        (("True", "False", "", "True"), "it numbers no videos"),
        (("1", "1", "1", "2"), "it may number those of each animal anew"),
    ],
)
def test_columns_that_are_no_videos_hide_no_pairs(read: Read, videos: tuple[str, ...], why: str) -> None:
    rows = [f"p{i},animal {i},{i}.jpg,{video}" for i, video in enumerate(videos)]
    if "anew" in why:
        rows += [f"q{i},animal {i % 4},q{i}.jpg,{1 + i // 4}" for i in range(8)]
    catalogue = read("image_id,identity,path,video", *rows)
    assert set(encounters(catalogue)) == {None}
    assert "video" in catalogue.kept
    assert any(why in text for text in catalogue.warnings)


def test_a_catalogue_without_encounters_is_told_so(read: Read) -> None:
    said = said_of(read("image_id,identity,path", "a,x,1.jpg"))
    assert any(t.startswith("no photo has an encounter") and "--encounter-gap MINUTES" in t for t in said)
    assert not any(
        "near-identical" in t for t in said_of(read("image_id,identity,path,seq_id", "a,x,1.jpg,s"))
    )
