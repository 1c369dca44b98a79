"""The stage that judges: once per state of the evidence, with the same bytes.

What people say counts from then on.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.stages import JUDGE
from schemas.tables.reviews import REVIEW_PARTITION, WITHDRAWN, Review
from schemas.views.graph import relations
from tasks.job import Job
from tasks.runs.remaining import look
from tasks.stages import judge as module
from tasks.stages.judge import judge
from tasks.stages.judge_evidence import evidence_of
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, files_of, read_small, rewrite

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
Row = tuple[Any, ...]


class Judging:
    """The finished small catalogue in a warehouse of its own."""

    def __init__(self, done: Stages, folder: Path) -> None:
        shutil.copytree(
            done.warehouse.root,
            folder,
            ignore=shutil.ignore_patterns(*JUDGE.tables, "explanations", "*.webp"),
        )
        self.job: Job = replace(done.job, warehouse=Warehouse(str(folder)))
        assert done.gallery is not None
        self.state, self.columns = done.gallery.state, done.columns()
        self.told = 0

    def judge(self) -> int:
        with look(self.job, self.columns, wanted=module.READ) as (connection, _):
            return judge(self.job, connection, self.state)

    def ask(self, query: str) -> list[Row]:
        with look(self.job, self.columns, wanted=relations("ask", query)) as (connection, _):
            return list(connection.execute(query).fetchall())

    def files(self) -> dict[str, bytes]:
        """The shards of the judgement."""
        return {k: v for k, v in files_of(self.job.warehouse).items() if k.split("/")[0] in JUDGE.tables}

    def say(self, verdict: str, photo: str, chip: str, **more: Any) -> None:
        """Store one more verdict."""
        self.told += 1
        kind = "pair" if more.get("photo_b") else "name"
        at = NOON + timedelta(minutes=self.told)
        review = Review(f"r{self.told}", at, kind, verdict, photo, chip, **more)
        self.job.warehouse.write("reviews", REVIEW_PARTITION, review.review_id, [review.row()])


@pytest.fixture
def judging(done: Stages, tmp_path: Path) -> Judging:
    return Judging(done, tmp_path / "w")


def test_all_is_judged_once_and_the_same_evidence_gives_the_same_bytes(
    judging: Judging, done: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = judging.judge()
    written = judging.files()
    assert {path.split("/")[0] for path in written} == set(JUDGE.tables)
    ((listed, names, known),) = judging.ask(
        "SELECT count(*), count(DISTINCT identity), count(identity) FROM judged_photos"
    )
    assert listed == photos == judging.ask("SELECT photos FROM judged_catalogues")[0][0]
    assert names == judging.ask("SELECT names FROM judged_catalogues")[0][0]
    assert judging.ask("SELECT count(*) FROM judged_photos WHERE probability IS NOT NULL") == [(known,)]
    assert judging.ask("SELECT count(*) FROM judgements")[0][0] > 20
    elsewhere = Judging(done, tmp_path / "other")
    elsewhere.judge()
    assert elsewhere.files() == written

    def again(*_: Any) -> Any:
        raise AssertionError("nothing is left to judge")

    monkeypatch.setattr(module, "judge_evidence", again)
    assert judging.judge() == photos
    assert judging.files() == written


def test_what_was_added_sums_to_the_log_odds(judging: Judging) -> None:
    judging.judge()
    ((pairs, furthest, lengths, chance),) = judging.ask(
        """SELECT count(*), max(abs(list_sum(added) - log_odds)), bool_and(len(terms) = len(added)),
            max(abs(probability - 1 / (1 + exp(-log_odds)))) FROM judgements"""
    )
    assert pairs
    assert furthest < 1e-9
    assert lengths
    assert chance < 1e-9
    ((terms,),) = judging.ask("SELECT DISTINCT terms FROM judgements")
    signals = {c for (c,) in judging.ask("SELECT column_name FROM (DESCRIBE judged_signals)")} - {"pair_id"}
    assert terms[:5] == ["prior", "cosine", "crowding", "nearer_rank", "farther_rank"]
    assert terms[5] == "level"
    assert set(terms[6:]) == signals
    assert {t for (t,) in judging.ask("SELECT term FROM judges WHERE part = 'level'")} == {"shift", "slope"}
    assert {t for (t,) in judging.ask("SELECT term FROM judges WHERE part = 'trust'")} == signals
    weights = judging.ask(
        """SELECT count(*) FROM judgements AS j JOIN pair_scores AS p USING (pair_id)
        WHERE p.photo_a <> j.photo_a OR p.photo_b <> j.photo_b"""
    )
    assert weights == [(0,)]


def test_candidates_are_of_nameless_photos_and_hold_a_new_animal(judging: Judging) -> None:
    judging.judge()
    rows = judging.ask(
        """SELECT c.photo_id, count(*) FILTER (name IS NULL), sum(c.probability), any_value(identity), list(rank ORDER BY rank)
        FROM candidates AS c JOIN judged_photos USING (photo_id) GROUP BY ALL"""
    )
    nameless = judging.ask("SELECT photo_id FROM judged_photos WHERE identity IS NULL")
    assert {row[0] for row in rows} == {photo for (photo,) in nameless} != set()
    for _, new, total, identity, ranks in rows:
        assert (new, identity) == (1, None)
        assert 0 < total <= 1 + 1e-9
        assert ranks == list(range(1, len(ranks) + 1))


def test_evidence_is_what_the_views_show(judging: Judging) -> None:
    with look(judging.job, judging.columns) as (connection, left):
        evidence = evidence_of(connection, left.gallery())
        ids = evidence.gallery.photo_ids
        scores = dict(connection.execute("SELECT pair_id, cosine FROM pair_scores").fetchall())
        comparable = connection.execute(
            """SELECT pair_id FROM pair_scores AS p
            JOIN photos AS a ON a.photo_id = photo_a
            JOIN photos AS b ON b.photo_id = photo_b
            WHERE coalesce(a.viewpoint = b.viewpoint, true) ORDER BY pair_id"""
        ).fetchall()
        places: dict[tuple[str, str], int] = {
            (photo, other): rank
            for photo, other, rank in connection.execute(
                "SELECT photo, other, rank FROM neighbours WHERE rank IS NOT NULL"
            ).fetchall()
        }
        coverage = dict(connection.execute("SELECT pair_id, match_coverage FROM pair_scores").fetchall())
    pairs = evidence.pairs
    keys = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert keys == sorted(set(keys))
    assert all(a < b for a, b in keys)
    assert evidence.photos.known.tolist() == [name is not None for name in evidence.gallery.names]
    pair_ids = evidence.pair_ids.to_pylist()
    assert sorted(p for p in pair_ids if p) == [pair for (pair,) in comparable]
    for row, ((a, b), pair) in enumerate(zip(keys, pair_ids, strict=True)):
        if pair:
            assert pairs.cosine[row] == pytest.approx(scores[pair])
            assert pairs.signals["coverage"][row] == pytest.approx(coverage[pair])
        else:
            assert all(np.isnan(value[row]) for value in pairs.signals.values())
        assert evidence.scored[row] == (pair is not None)
        assert pairs.rank_first[row] == places.get((ids[a], ids[b]), 0)
        assert pairs.rank_second[row] == places.get((ids[b], ids[a]), 0)


@pytest.mark.slow
def test_what_a_person_says_of_a_name_counts_until_it_is_taken_back(judging: Judging) -> None:
    judging.judge()
    seen = "SELECT photo_id, probability, identity FROM judged_photos ORDER BY photo_id"
    before = judging.ask(seen)
    photo, chip, name = judging.ask(
        """SELECT photo_id, chip_id, p.identity FROM photos AS p JOIN judged_photos USING (photo_id)
        WHERE NOT undefended AND probability IS NOT NULL ORDER BY probability LIMIT 1"""
    )[0]

    def chance() -> float:
        judging.judge()
        ((found,),) = judging.ask(f"SELECT probability FROM judged_photos WHERE photo_id = '{photo}'")
        return float(found)

    judging.say("wrong", photo, chip, identity_a=name)
    assert chance() > 0.999
    judging.say("right", photo, chip, identity_a=name)  # as many verdicts count as before
    assert chance() < 1e-6
    judging.say("wrong", photo, chip, identity_a=f"not {name}")  # of a name that it does not have
    assert chance() < 1e-6
    judging.say(WITHDRAWN, photo, chip, identity_a=name)
    chance()
    assert judging.ask(seen) == before
    assert len(judging.ask("SELECT DISTINCT basis FROM all_judged_photos")) == 5
    # Whoever said of another name that this one is right has answered, now that the photo has it.
    judging.say("wrong", photo, chip, identity_a=f"once {name}", right_name=name)
    assert chance() < 1e-6
    judging.say(WITHDRAWN, photo, chip, identity_a=f"once {name}")
    chance()
    assert judging.ask(seen) == before


@pytest.mark.slow
def test_what_a_person_says_of_a_pair_changes_what_is_learned(judging: Judging) -> None:
    judging.judge()
    seen = "SELECT log_odds FROM judgements ORDER BY pair_id"
    before = judging.ask(seen)
    # Only what is among the nearest teaches.
    pair = judging.ask(
        """SELECT p.photo_a, a.chip_id, p.photo_b, b.chip_id, p.pair_id, a.identity, b.identity
        FROM judgements AS p
        JOIN photos AS a ON a.photo_id = p.photo_a
        JOIN photos AS b ON b.photo_id = p.photo_b
        JOIN neighbours AS n ON n.photo = p.photo_a AND n.other = p.photo_b
        WHERE a.identity <> b.identity AND n.rank IS NOT NULL
        ORDER BY p.pair_id LIMIT 1"""
    )[0]
    photo_a, chip_a, photo_b, chip_b, pair_id, identity_a, identity_b = pair
    more = {"photo_b": photo_b, "chip_b": chip_b, "pair_id": pair_id, "identity_a": identity_a, "identity_b": identity_b}  # fmt: skip
    found = []
    for verdict in ("same_animal", "different_animals", "cannot_tell"):
        judging.say(verdict, photo_a, chip_a, **more)
        judging.judge()
        found.append(judging.ask(seen))
    assert found[0] != before
    assert found[1] != found[0]
    assert found[2] == before  # no answer is no evidence


def test_judged_names_of_an_earlier_judgement_are_not_shown(judging: Judging) -> None:
    judging.judge()
    names = judging.job.warehouse
    row = {
        "state": judging.state, "basis": 0, "kind": "two_names_one_animal", "name_a": "once", "name_b": "said",
        "photos_a": ["a"], "photos_b": ["b"], "log_odds": 1.0, "probability": 0.7, "pairs": 1,
        "supporting_photos_a": [], "supporting_photos_b": [], "supporting_pairs": [],
    }  # fmt: skip
    names.write("judged_names", judging.job.prints.judgements, "old", [row])
    assert judging.ask("SELECT count(*) FROM judged_names WHERE name_a = 'once'") == [(0,)]


@pytest.mark.slow
def test_other_names_are_another_state_with_a_judgement_of_its_own(
    judging: Judging, small: Path, tmp_path: Path
) -> None:
    judging.judge()
    first = judging.files()
    ((photo, name),) = judging.ask(
        "SELECT photo_id, identity FROM judged_photos WHERE identity IS NOT NULL ORDER BY photo_id LIMIT 1"
    )
    others = judging.ask(f"SELECT identity FROM judged_photos WHERE identity <> '{name}' ORDER BY 1 LIMIT 1")

    def corrected(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"identity": others[0][0]} if row["image_id"] == photo else row for row in rows]

    folder = tmp_path / "corrected"
    shutil.copytree(small.parent, folder)
    metadata = rewrite(folder / "metadata.csv", "corrected.csv", corrected)
    stages = Stages.run(read_small(metadata), judging.job.warehouse, until="verify")
    assert stages.gallery is not None
    assert stages.gallery.state != judging.state
    with look(stages.job, stages.columns()) as (connection, _):
        judge(stages.job, connection, stages.gallery.state)
    with look(stages.job, stages.columns()) as (connection, _):
        now = connection.execute(f"SELECT identity FROM judged_photos WHERE photo_id = '{photo}'").fetchall()
    assert now == others
    both = judging.files()
    assert first.items() < both.items()
    assert len(both) == 2 * len(first)
