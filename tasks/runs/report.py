"""The run report: what the tables say at the end of a run, as an HTML page in the warehouse with its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from schemas.settings import EMBEDDED_NOTICE
from tasks.job import Job
from tasks.pages.judgement import Estimate, ReportBin, ReportCandidates, ReportJudgement
from tasks.pages.report import (
    MAX_SUSPECTS,
    ReportBalance,
    ReportFailure,
    ReportInput,
    ReportStage,
    ReportSuspect,
    render_report,
)
from tasks.pages.report_cards import card_of
from tasks.pages.scatter import ReportScatter
from tasks.reviews.questions import key_of
from tasks.runs.log import Balance, RunLog, StageLog, devices_of, limit_of_embedding, versions
from tasks.runs.report_photos import Picture, photo_pictures
from tasks.runs.tonight import Tonight, report_tonight
from tasks.store.reports import report_path, store_pictures, stored_pictures

_SHOWN_EXAMPLES = 3
_SHOWN_ANSWERS = 3
_SHOWN_UNKNOWN = 50
_SCATTER_POINTS = 20_000
_LISTED = "s.rank <= ? OR list_contains(CAST(? AS INTEGER[]), s.rank)"


def write_report(
    job: Job,
    log: RunLog,
    connection: duckdb.DuckDBPyConnection,
    sums: Sequence[Balance],
    stages: Sequence[StageLog],
    tonight: Tonight,
) -> tuple[str, dict[str, int]]:
    """Write ``reports/RUN_ID.html`` into the warehouse, and its pictures that are not there yet.

    Returns the address of the page and the headline counts.
    """
    new = report_tonight(connection, tonight)
    there = stored_pictures(job.warehouse)
    suspects = suspects_of(connection, job.layers[0], [suspect.rank for suspect in new.suspects])
    late: list[str] = []
    photos = photo_pictures(connection, suspects, there, job.settings.max_pixels, late)
    log.left += [f"pictures of {len(late)} photos"] if late else []
    counts = _counts(connection)
    page = render_report(
        ReportInput(
            title="PAIR-X nightly run",
            run_id=log.run_id,
            started=log.started,
            finished=datetime.now(UTC),
            counts=counts,
            balances=[ReportBalance(str(s), s.ok) for s in sums],
            suspects=[_with_photos(suspect, photos) for suspect in suspects],
            n_suspects_total=counts["suspects"],
            scatter=_scatter(connection),
            failures=_failures(connection),
            timings=[_stage(s) for s in stages],
            limit=limit_of_embedding(stages),
            settings=job.settings.model_dump(mode="json") | {"layers": list(job.layers)},
            fingerprints=asdict(job.prints),
            versions=versions() | _devices(stages),
            warnings=[*([EMBEDDED_NOTICE] if job.settings.model == "embedded" else []), *log.oddities],
            remarks=[said for said in log.remarks if said not in log.oddities],
            judgement=_judgement(connection),
            tonight=new,
            warehouse=job.warehouse.url,
        )
    )
    drawn = {photo.name: photo.data for photo in photos.values() if photo.data is not None}
    # Pictures come first: a page that is there shows what it names.
    store_pictures(job.warehouse, {**page.pictures, **drawn}, there)
    return job.warehouse.write_file(report_path(log.run_id), page.html.encode()), counts


def _counts(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    queries = {
        "photos": "SELECT count(*) FROM photos",
        "animals": "SELECT count(DISTINCT identity) FROM photos",
        "neighbours": "SELECT count(*) FROM run_neighbours",
        "pairs": "SELECT count(*) FROM pairs",
        "scored": "SELECT count(DISTINCT pair_id) FROM scores",
        "suspects": "SELECT count(*) FROM suspects",
        "figures": "SELECT count(*) FROM explanations",
        "failures": "SELECT count(*) FROM failures",
    }
    return {name: int(connection.execute(query).fetchall()[0][0]) for name, query in queries.items()}


def suspects_of(connection: duckdb.DuckDBPyConnection, layer: str, new: Sequence[int]) -> list[ReportSuspect]:
    """The first suspects and those of the ranks `new`, each with its question."""
    wanted = [MAX_SUSPECTS + len(new), list(new)]
    asked = connection.execute(f"SELECT * FROM questions AS s WHERE {_LISTED}", wanted)  # noqa: S608  # a constant
    columns = [column[0] for column in asked.description or ()]
    questions = [dict(zip(columns, row, strict=True)) for row in asked.fetchall()]
    cards = {question["rank"]: card_of(question, key_of(question)) for question in questions}
    found = connection.execute(
        f"""
        SELECT s.rank, s.kind, s.score, s.photo_a, s.photo_b, s.identity_a, s.identity_b, s.cosine,
               s.inverted_residual_mean, s.match_coverage, s.n_matches, s.n_inliers, s.reason,
               s.blamed_photo, s.proposed_name, p.expected, e.chips, e.overlay, e.colours
        FROM suspects AS s
        JOIN expected_precision AS p USING (rank)
        LEFT JOIN explanations AS e ON e.pair_id = s.pair_id AND e.layer = ?
        WHERE {_LISTED}
        ORDER BY s.rank
        """,  # noqa: S608  # a constant
        [layer, *wanted],
    )
    return [replace(ReportSuspect(*row), card=cards.get(row[0])) for row in found.fetchall()]


def _with_photos(suspect: ReportSuspect, pictures: Mapping[str, Picture]) -> ReportSuspect:
    """A suspect that has no figure with the pictures of its two photos, as far as there are any."""
    if suspect.chips is not None:
        return suspect
    a, b = (
        pictures[photo].name if photo in pictures else None for photo in (suspect.photo_a, suspect.photo_b)
    )
    return replace(suspect, photos=(a, b))


def _judgement(connection: duckdb.DuckDBPyConnection) -> ReportJudgement | None:
    """None where nothing has been judged."""
    found = connection.execute(
        """
        SELECT names, sensitivity, wrong_names, wrong_names_low, wrong_names_high, animals, animals_low, animals_high,
               (SELECT count(*) FROM judged_photos WHERE undefended), calibration_error, brier, brier_cosine
        FROM judged_catalogues
        """
    ).fetchone()
    if found is None:
        return None
    names, sensitivity, *numbers, undefended, error, brier, brier_cosine = found
    wrong, animals = numbers[:3], numbers[3:]
    bins = connection.execute("SELECT pairs, stated, found FROM reliability ORDER BY bin").fetchall()
    unknown = connection.execute(
        """
        SELECT photo_id, list((name, probability) ORDER BY rank)[:$answers]
        FROM candidates GROUP BY photo_id
        ORDER BY max(probability) FILTER (name IS NOT NULL) DESC NULLS LAST, photo_id LIMIT $photos
        """,
        {"answers": _SHOWN_ANSWERS, "photos": _SHOWN_UNKNOWN},
    ).fetchall()
    n_unknown = connection.execute("SELECT count(DISTINCT photo_id) FROM candidates").fetchall()[0][0]
    return ReportJudgement(
        names=names,
        wrong_names=Estimate(*wrong),
        sensitivity=sensitivity,
        animals=None if animals[0] is None else Estimate(*animals),
        undefended=undefended,
        calibration_error=error,
        brier=brier,
        brier_cosine=brier_cosine,
        bins=[ReportBin(*row) for row in bins],
        candidates=[ReportCandidates(photo, [tuple(a) for a in answers]) for photo, answers in unknown],
        n_unknown=n_unknown,
    )


def _scatter(connection: duckdb.DuckDBPyConnection) -> ReportScatter:
    """Similarity and plausibility of all pairs, or of a fixed sample when there are very many."""
    found: dict[str, Any] = connection.execute(
        """
        SELECT cosine, inverted_residual_mean, match_coverage,
               CASE WHEN same_identity IS NULL THEN 'unknown' WHEN same_identity THEN 'same' ELSE 'different' END AS relation
        FROM pair_scores ORDER BY hash(pair_id) LIMIT ?
        """,
        [_SCATTER_POINTS],
    ).fetchnumpy()

    def numbers(name: str) -> NDArray[np.float64]:
        return np.ma.filled(np.ma.asarray(found[name], dtype=np.float64), np.nan)

    return ReportScatter(
        numbers("cosine"),
        numbers("inverted_residual_mean"),
        numbers("match_coverage"),
        found["relation"].tolist(),
    )


def _failures(connection: duckdb.DuckDBPyConnection) -> list[ReportFailure]:
    rows = connection.execute(
        """
        SELECT stage, code, count(*), list((item, message) ORDER BY item)[:$shown]
        FROM failures GROUP BY stage, code ORDER BY stage, code
        """,
        {"shown": _SHOWN_EXAMPLES},
    ).fetchall()
    return [
        ReportFailure(stage, code, count, [tuple(e) for e in examples])
        for stage, code, count, examples in rows
    ]


def _devices(stages: Sequence[StageLog]) -> dict[str, str]:
    found = devices_of(stages)
    return {"computed on": "; ".join(found)} if found else {}


def _stage(log: StageLog) -> ReportStage:
    share = log.engine_seconds / log.work_seconds if log.work_seconds else None
    return ReportStage(log.stage, log.seconds, log.shards, share, log.items, log.per_second, log.where)
