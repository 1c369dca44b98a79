"""Questions and verdicts in other programs' files: out and in again, every bad row told, the same file twice adds nothing."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.errors import SettingsError
from tasks.reviews.agreement import agreement_by_kind
from tasks.reviews.exchange.asked import VIEWS as ASKED
from tasks.reviews.exchange.asked import rows_of
from tasks.reviews.exchange.formats import FORMATS, Request, answers_in
from tasks.reviews.exchange.incoming import CHANGED, VIEWS, AnswersRefused, Incoming, reviews_of, store
from tasks.reviews.opened import opened
from tasks.store.warehouse import Warehouse
from tests.schemas.test_suspects import NAMES
from tests.tasks.reviews.test_verdicts import warehouse as one_question_of_each_kind
from tests.toy_warehouse import Photo, write_photos

warehouse = one_question_of_each_kind
SAID = {"name": "same", "copy": "different", "names": "same", "split": "different"}
VERDICTS = {"name": "wrong", "copy": "no_copy", "names": "one_animal", "split": "two_animals"}


def exported(warehouse: Warehouse, form: str = "csv", **request: Any) -> tuple[str, Mapping[str, str]]:
    with opened(warehouse, FORMATS[form].views) as connection:
        return FORMATS[form].write(connection, Request(**request))


def incoming(warehouse: Warehouse, text: str, name: str = "a.csv", reviewer: str | None = None) -> Incoming:
    with opened(warehouse, VIEWS) as connection:
        return reviews_of(connection, answers_in(name, text.encode()), reviewer)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def filled(text: str, **changes: str) -> str:
    """An export with an answer in each row."""
    rows = [row | {"answer": SAID[row["kind"]]} | changes for row in table(text)]
    lines: list[str] = []
    writer = csv.DictWriter(_Lines(lines), list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines)


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def said(warehouse: Warehouse) -> dict[str, tuple[str, str | None]]:
    with opened(warehouse, ["reviews"]) as connection:
        rows = connection.sql("SELECT kind, verdict, right_name FROM reviews WHERE applies").fetchall()
    return {kind: (verdict, right) for kind, verdict, right in rows}


def test_questions_go_out_as_csv_and_come_back_once(warehouse: Warehouse) -> None:
    text, beside = exported(warehouse)
    assert (sorted(row["kind"] for row in table(text)), beside) == (sorted(SAID), {})
    assert incoming(warehouse, text).reviews == []  # nothing was answered
    answers = filled(text, at="2026-06-01T12:00", reviewer="ann", note="=1+1")
    found = incoming(warehouse, answers)
    assert (found.problems, found.known, len(found.reviews)) == ([], 0, 4)
    assert {(r.reviewer, r.at, r.note) for r in found.reviews} == {
        ("ann", datetime(2026, 6, 1, 12, tzinfo=UTC), "=1+1")
    }
    store(warehouse, found.reviews)
    assert said(warehouse) == {k: (v, "B" if k == "name" else None) for k, v in VERDICTS.items()}
    again = incoming(warehouse, answers)
    assert (again.reviews, again.known) == ([], 4)
    assert table(exported(warehouse)[0]) == []
    verdicts, _ = exported(warehouse, verdicts=True)
    assert [row["note"] for row in table(verdicts)] == ["'=1+1"] * 4
    assert incoming(warehouse, verdicts).known == 4


def test_without_a_time_the_same_file_adds_nothing_either(warehouse: Warehouse) -> None:
    answers = filled(exported(warehouse)[0])
    store(warehouse, incoming(warehouse, answers, reviewer="bob").reviews)
    assert incoming(warehouse, answers, reviewer="bob").known == 4
    assert len(incoming(warehouse, answers, reviewer="cid").reviews) == 4


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_download_of_a_report_is_enough(warehouse: Warehouse, separator: str) -> None:
    columns = ("kind", "subject", "other", "answer", "reviewer", "at", "note", "pair_id")
    rows = [
        [row[c] for c in columns] for row in table(filled(exported(warehouse)[0], at="2026-06-01T12:00:00Z"))
    ]
    text = "\r\n".join(separator.join(row) for row in [columns, *rows])
    found = incoming(warehouse, "\ufeff" + text)
    assert found.problems == []
    full = incoming(warehouse, filled(exported(warehouse)[0], at="2026-06-01T12:00:00Z"))
    assert {replace(r, suspect_kind=None) for r in full.reviews} == set(found.reviews)


def test_all_bad_rows_are_told_with_their_numbers(warehouse: Warehouse) -> None:
    text = """kind,subject,other,answer,reviewer,at,note,pair_id,right_name,review_id
name,a0,B,same,,,,,,
colour,a0,,same,,,,,,
name,a0,B,yes,,,,,,
name,zz,,same,,,,,,
name,a0,,same,,yesterday,,,,
name,a0,,same,,9999-01-01T00:00:00Z,,,,
names,A,B,same,,,,,,
copy,feed,,same,,,,,,
split,C,,bad,,,,,,
name,a1,,different,x,,,,,../../x
name,a1,,other,,,,,,,,
"""
    found = incoming(warehouse, text)
    assert [(p.where, p.kind) for p in found.problems] == [
        ("row 3", "no question"), ("row 4", "no answer"), ("row 5", "unknown photo"), ("row 6", "bad time"),
        ("row 7", "bad time"), ("row 8", "no question"), ("row 9", CHANGED), ("row 10", "no photo"), ("row 11", "bad id"),
        ("row 12", "bad row"),
    ]  # fmt: skip
    assert len(found.reviews) == 1
    message = str(AnswersRefused(found.problems))
    assert "10 rows cannot be stored" in message
    assert "row 9" in message


def test_verdicts_on_photos_that_look_otherwise_now_are_refused_and_counted(warehouse: Warehouse) -> None:
    full = filled(exported(warehouse)[0])
    short = "\n".join(
        ",".join(line.split(",")[:9]) for line in full.splitlines() if not line.startswith("split")
    )
    write_photos(
        warehouse, [Photo(p, NAMES[p], content="new", revision=1) for p in ("a0", "c1", "b0", "b1", "b2")]
    )
    found = incoming(warehouse, full)
    assert (found.changed, {r.kind for r in found.reviews}) == (3, {"split"})
    # A row without chips tells by its pair.
    assert incoming(warehouse, short.replace(",names,", ",")).changed >= 2


def test_a_bad_photo_and_a_verdict_taken_back(warehouse: Warehouse) -> None:
    text, _ = exported(warehouse)
    store(warehouse, incoming(warehouse, filled(text, answer="bad", bad_photo="b1")).reviews)
    assert said(warehouse) == {"photo": ("bad", None)}
    rows = "kind,subject,answer,at,reviewer\nphoto,b1,withdrawn,2030-01-01T00:00:00Z,\n"
    assert incoming(warehouse, rows).problems[0].kind == "bad time"
    found = incoming(warehouse, rows.replace("2030-01-01T00:00:00Z", ""))
    store(warehouse, found.reviews)
    assert said(warehouse) == {}


def test_what_was_answered_since_the_run_asked_is_not_written_out_again(warehouse: Warehouse) -> None:
    text, _ = exported(warehouse)
    shows_b1 = {row["kind"] for row in table(text) if "b1" in (row["photo_a"], row["photo_b"])}
    with opened(warehouse, ASKED) as connection:
        asked = connection.sql("FROM questions").to_arrow_table()
    header, *_ = text.splitlines()
    (split,) = [line for line in text.splitlines() if line.startswith("split")]
    store(warehouse, incoming(warehouse, filled(f"{header}\n{split}\n")).reviews)
    store(warehouse, incoming(warehouse, "kind,subject,answer\nphoto,b1,bad\n").reviews)
    with opened(warehouse, ASKED) as connection:
        # As after a run, which keeps its questions in a file.
        connection.register("asked", asked)
        connection.execute("DROP VIEW questions")
        connection.execute("CREATE TABLE questions AS FROM asked")
        left = {row["kind"] for row in rows_of(connection, verdicts=False, second_look=False)}
    assert "name" in shows_b1
    assert left == set(SAID) - shows_b1 - {"split"} != set()


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("a,b\n1,2\n", "header"),
        ("kind,kind,subject,answer\n", "header"),
        ('kind,subject,answer\n"a,b', "again"),
        ("", "header"),
    ],
)
def test_what_is_no_file_of_verdicts_is_refused(warehouse: Warehouse, text: str, cure: str) -> None:
    with pytest.raises(SettingsError) as caught:
        incoming(warehouse, text)
    assert cure in str(caught.value.cure)


# ------------------------------------------------------------------------------------------- Label Studio


def annotated(tasks: list[dict[str, Any]], **annotation: Any) -> str:
    """An export as Label Studio's documentation shows it, an answer to each task."""
    return json.dumps(
        [
            {
                "id": number,
                "created_at": "2026-06-01T10:00:00.513742Z",
                "updated_at": "2026-06-01T10:30:00.746926Z",
                "project": 83,
                "data": task["data"],
                "annotations": [
                    {
                        "id": 1000 + number,
                        "completed_by": {"id": 10, "email": "ann@example.org", "first_name": "", "last_name": ""},
                        "result": [
                            {
                                "value": {"choices": [SAID[task["data"]["kind"]]]}, "id": "Dx_aB91ISN", "from_name": "answer",
                                "to_name": "image_a", "type": "choices", "origin": "manual",
                            },
                            {
                                "value": {"text": ["a", "note"]}, "id": "yrSY-dipPI", "from_name": "note", "to_name": "image_a",
                                "type": "textarea", "origin": "manual",
                            },
                        ],
                        "was_cancelled": False, "ground_truth": False, "created_at": "2026-06-01T10:22:00.728353Z",
                        "updated_at": "2026-06-01T10:22:01.728378Z", "lead_time": 4.288, "result_count": 0, "task": number,
                        **annotation,
                    }
                ],
                "predictions": [],
            }
            for number, task in enumerate(tasks, 1)
        ]
    )  # fmt: skip


def test_label_studio_gets_tasks_that_its_configuration_shows(warehouse: Warehouse) -> None:
    text, beside = exported(warehouse, "label-studio")
    tasks = json.loads(text)
    assert {tuple(task) for task in tasks} == {("data",)}
    name = next(task["data"] for task in tasks if task["data"]["kind"] == "name")
    assert name["image_a"] == "/data/local-files/?d=images/a0.jpg"
    config = ET.fromstring(beside[".xml"])
    named = {e.get("name") for e in config.iter() if e.get("name")}
    assert {e.get("toName") for e in config.iter() if e.get("toName")} <= named
    shown = {str(e.get("value"))[1:] for e in config.iter() if str(e.get("value")).startswith("$")}
    assert all(shown <= task["data"].keys() for task in tasks)
    choices = [e.get("value") for e in config.iter("Choice")]
    assert choices == ["same", "different", "other", "unsure", "bad"]
    other, _ = exported(warehouse, "label-studio", images="https://host/p/", top=1)
    assert [task["data"]["image_a"][:15] for task in json.loads(other)] == ["https://host/p/"]


def test_label_studios_answers_come_back_once(warehouse: Warehouse) -> None:
    tasks = json.loads(exported(warehouse, "label-studio")[0])
    answers = annotated(tasks)
    found = incoming(warehouse, answers, "export.json")
    assert found.problems == []
    at = datetime(2026, 6, 1, 10, 22, 1, 728378, tzinfo=UTC)
    assert {(r.reviewer, r.at, r.note) for r in found.reviews} == {("ann@example.org", at, "a note")}
    store(warehouse, found.reviews)
    assert said(warehouse) == {k: (v, "B" if k == "name" else None) for k, v in VERDICTS.items()}
    assert incoming(warehouse, answers, "export.json").known == 4


def test_what_label_studio_leaves_out_or_writes_otherwise(warehouse: Warehouse) -> None:
    tasks = json.loads(exported(warehouse, "label-studio")[0])
    assert incoming(warehouse, annotated(tasks, was_cancelled=True), "x.json").reviews == []
    assert incoming(warehouse, json.dumps(tasks), "x.json").reviews == []
    numbered = incoming(warehouse, annotated(tasks, completed_by=10), "x.json")
    assert {r.reviewer for r in numbered.reviews} == {"10"}
    minimal = [
        task["data"] | {"id": i, "answer": SAID[task["data"]["kind"]], "annotator": 10, "annotation_id": i, "updated_at": "2026-06-01T10:22:01Z"}
        for i, task in enumerate(tasks)
    ]  # fmt: skip
    found = incoming(warehouse, json.dumps(minimal), "x.json")
    assert ({r.reviewer for r in found.reviews}, len(found.reviews), found.problems) == ({"10"}, 4, [])
    two = [{"from_name": "answer", "value": {"choices": ["same", "bad"]}}]
    problems = incoming(warehouse, annotated(tasks, result=two), "x.json").problems
    assert [p.where for p in problems] == [f"task {i}, annotation 1" for i in range(1, 5)]
    for bad in ("[1]", "{}", "[", "[" * 100_000):
        with pytest.raises(SettingsError):
            incoming(warehouse, bad, "x.json")


# ------------------------------------------------------------------------------- second looks and names


def test_second_looks_are_asked_without_what_was_said(warehouse: Warehouse) -> None:
    text, _ = exported(warehouse)
    store(warehouse, incoming(warehouse, filled(text), reviewer="ann").reviews)
    looks, _ = exported(warehouse, second_look=True)
    assert sorted(row["kind"] for row in table(looks)) == sorted(SAID)
    assert {row["answer"] + row["reviewer"] + row["right_name"] for row in table(looks)} == {""}
    second = incoming(warehouse, filled(looks, proposed_name="B"), reviewer="bob")
    assert second.problems == []
    store(warehouse, second.reviews)
    assert table(exported(warehouse, second_look=True)[0]) == []
    against = incoming(warehouse, filled(looks, answer="different"), reviewer="cid")
    store(warehouse, against.reviews)
    rows = table(exported(warehouse, second_look=True)[0])
    assert {row["words"] for row in rows} == {"disagreement"}
    assert sorted(row["kind"] for row in rows) == ["name", "names"]
    with opened(warehouse, ["opinions"]) as connection:
        found = agreement_by_kind(connection)
    # Names: wrong, wrong, right; one pair of three agrees.
    assert (found["name"].percent, found["split"].percent) == (pytest.approx(100 / 3), 100)
    assert found["name"].alpha == pytest.approx(1 - 2 / 2)


def test_corrected_names_for_wildbook_and_wildlife_datasets(warehouse: Warehouse) -> None:
    rows = "kind,subject,answer,right_name\nname,a0,wrong,=B\nname,a1,wrong,\n"
    store(warehouse, incoming(warehouse, rows).reviews)
    assert table(exported(warehouse, "wildbook")[0]) == [
        {
            "Encounter.mediaAsset0": f"{photo}.jpg", "Encounter.individualID": name, "Occurrence.occurrenceID": "",
            "Encounter.genus": "zebra", "Encounter.specificEpithet": "", "Encounter.year": "2026", "Encounter.month": "2",
            "Encounter.day": "3",
        }
        for photo, name in (("a0", "'=B"), ("a1", ""))
    ]  # fmt: skip
    frame = table(exported(warehouse, "frame")[0])
    assert [(row["image_id"], row["identity"]) for row in frame[:3]] == [
        ("a0", "'=B"),
        ("a1", "unknown"),
        ("a2", "A"),
    ]
    assert len(frame) == len(NAMES)
