"""What the cards show of a warehouse's newest run, read once when the server starts.

Held are the questions, the photos of the names that they are about, the scored pairs of the photos shown, and
how all pairs of the catalogue are spread. What is heavy (matches, relevances, pixel maps) is read for one card
when it is asked for.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.review.cards import Card, cards_of
from flows.review.news import MOST_RUNS, EarlierRun, News
from schemas.views.wanted import views_of
from tasks.reviews.questions import open_questions
from tasks.sql.console import connect_analyst

Row = Mapping[str, Any]
MEASURES = ("probability", "cosine", "match_coverage", "inverted_residual_mean")
"""What a pair is measured by: that it shows one animal, the embeddings, Eq. 5 and Eq. 4."""
_BINS, _SAMPLE = 48, 100_000
_LOGARITHMIC = ("inverted_residual_mean",)
"""Measures without an upper end: copies, which fit exactly, would leave no room for all others."""
_READ = (
    "questions", "current_run", "photos", "pair_scores", "judgements", "judged_catalogues", "matches", "relevances",
    "explanations", "keypoints", "runs",
)  # fmt: skip
_ASKED = "CREATE TEMP TABLE asked AS SELECT unnest(CAST(? AS VARCHAR[])) AS identity"
_SHOWN = "CREATE TEMP TABLE shown AS SELECT unnest(CAST(? AS VARCHAR[])) AS photo_id"
_PAIRS_ASKED = "CREATE TEMP TABLE pairs_asked AS SELECT unnest(CAST(? AS VARCHAR[])) AS pair_id"
_NAMES, _PHOTOS_SHOWN = ("identity_a", "identity_b", "other_name"), ("photo_a", "photo_b")
_PHOTOS = """
SELECT photo_id, chip_id, root, path, sha256, box, theta, width, height, identity, species, encounter, taken_at, viewpoint
FROM photos
WHERE chip_id IS NOT NULL AND (identity IN (FROM asked) OR photo_id IN (FROM shown))
ORDER BY photo_id
"""
_COUNTS = "SELECT identity, count(*) FROM photos WHERE identity IS NOT NULL GROUP BY ALL ORDER BY ALL"
_PAIRS = """
SELECT pair_id, photo_a, photo_b, cosine, match_coverage, inverted_residual_mean, j.probability
FROM pair_scores LEFT JOIN (SELECT pair_id, probability FROM judgements) AS j USING (pair_id)
WHERE photo_a IN (FROM shown) OR photo_b IN (FROM shown)
"""
_SPREAD = f"""
SELECT same_identity, j.probability, cosine, match_coverage, inverted_residual_mean
FROM (SELECT * FROM pair_scores WHERE same_identity IS NOT NULL USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (1)) AS p
LEFT JOIN (SELECT pair_id, probability FROM judgements) AS j USING (pair_id)
"""  # noqa: S608  # a number of this module's own
_DRAWN = """
SELECT DISTINCT pair_id FROM explanations SEMI JOIN pairs_asked USING (pair_id)
WHERE layer = (SELECT layer FROM current_run)
"""
_EARLIER = f"""
SELECT run_id, updated_at FROM runs
WHERE status = 'finished' AND state IS NOT NULL
    AND updated_at <= (SELECT max(updated_at) FROM runs SEMI JOIN current_run USING (run_id)) AND run_id <> (SELECT run_id FROM current_run)
ORDER BY updated_at DESC, run_id DESC LIMIT {MOST_RUNS}
"""  # noqa: S608  # a number of this module's own
_EXPECTED = "SELECT wrong_names, wrong_names_low, wrong_names_high FROM judged_catalogues"


@dataclass(frozen=True)
class Spread:
    """How a measure is spread over pairs of one name and of two: values between ascending `edges`, evenly or by factors."""

    edges: NDArray[np.float64]
    one: NDArray[np.float64]
    two: NDArray[np.float64]
    logarithmic: bool = False

    @cached_property
    def bins(self) -> dict[str, Any]:
        """Both as shares per bin between the edges."""
        shares = (
            np.histogram(np.clip(v, self.edges[0], self.edges[-1]), self.edges)[0]
            for v in (self.one, self.two)
        )
        one, two = ((counts / max(1, counts.sum())).round(5).tolist() for counts in shares)
        low, high = float(self.edges[0]), float(self.edges[-1])
        return {"low": low, "high": high, "log": self.logarithmic, "one": one, "two": two}

    def standing(self, value: float | None) -> tuple[float, float] | None:
        """The shares of pairs of one name and of two that lie below a value."""
        if value is None or not len(self.one) or not len(self.two):
            return None
        below = (float(np.searchsorted(values, value) / len(values)) for values in (self.one, self.two))
        one, two = below
        return one, two


@dataclass(frozen=True)
class Expected:
    """How many names are wrong, by the judgement, with an interval that holds it nine times in ten."""

    wrong_names: float
    low: float
    high: float


class ReviewedCatalogue:
    """The newest run of a warehouse as the cards show it.

    Raises `NoWarehouse` where there is none. `query` asks what was not read at the start, from any thread.
    """

    def __init__(self, url: str) -> None:
        wanted = f"SELECT NULL FROM {', '.join(_READ)}"  # noqa: S608  # names of this module's own views
        assert views_of(wanted)
        self._connection = connect_analyst(url, query=wanted)
        self._lock = Lock()
        found = open_questions(self._connection)
        self.run_id, self.state = found.run_id, found.state
        for made, columns in ((_ASKED, _NAMES), (_SHOWN, _PHOTOS_SHOWN), (_PAIRS_ASKED, ("pair_id",))):
            listed = {row[name] for row in found.rows for name in columns} - {None}
            self._connection.execute(made, [sorted(listed)]).fetchall()
        rows = self._connection.sql(_PHOTOS).to_arrow_table().to_pylist()
        self.photos: dict[str, Row] = {row["photo_id"]: row for row in rows}
        self.by_key = {picture_key(row): row for row in rows}
        self.cards: dict[str, Card] = cards_of(
            (q for q in found.rows if q["photo_a"] in self.photos and q["photo_b"] in self.photos),
            {name: row["species"] for name, row in self.photos.items()},
        )
        self.counts: dict[str, int] = dict(self._connection.execute(_COUNTS).fetchall())
        self.of_name: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row["identity"] is not None:
                self.of_name[row["identity"]].append(row["photo_id"])
        self._read_pairs()
        self.drawn = frozenset(pair for (pair,) in self._connection.execute(_DRAWN).fetchall())
        self.spreads = self._spreads()
        earlier = self._connection.execute(_EARLIER).fetchall()
        self.news = News(url, self.run_id, tuple(EarlierRun(*row) for row in earlier))
        expected = self._connection.execute(_EXPECTED).fetchall()
        self.expected = Expected(*expected[0]) if expected else None

    def query(self, query: str, values: Sequence[object]) -> list[Row]:
        """Rows of one query with parameters, as `table`."""
        return list(self.table(query, values).to_pylist())

    def table(self, query: str, values: Sequence[object]) -> pa.Table:
        """The answer to one query with parameters."""
        with self._lock:
            return self._connection.sql(query, params=list(values)).to_arrow_table()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def numbers(self, card: Card) -> dict[str, float | None]:
        """The measures of a card's pair; None for what was never scored."""
        scored = self.pairs.get(card.question["pair_id"], {})
        return {name: scored.get(name) for name in MEASURES}

    def others(self, card: Card, side: str, most: int = 24) -> list[Row]:
        """The best other photos of a side's animal: likeliest one animal with the other side's photo first.

        Pairs that were never scored follow, by date and id.
        """
        here, there = card.question[f"photo_{side}"], card.question["photo_b" if side == "a" else "photo_a"]
        name = card.question[f"identity_{side}"]
        listed = (
            card.question[f"photos_{side}"]
            if card.question["asks"] == "split"
            else self.of_name.get(name, ())
        )
        likely = self.near.get(there, {})
        found = [
            self.photos[photo]
            for photo in listed or ()
            if photo not in (here, there) and photo in self.photos
        ]
        found.sort(
            key=lambda row: (-likely.get(row["photo_id"], -3.0), row["taken_at"] or "", row["photo_id"])
        )
        return found[:most]

    def _read_pairs(self) -> None:
        self.pairs: dict[str, dict[str, float | None]] = {}
        self.near: dict[str, dict[str, float]] = defaultdict(dict)
        asked = {card.question["pair_id"] for card in self.cards.values()}
        for pair, a, b, *values in self._connection.execute(_PAIRS).fetchall():
            cosine, coverage, sharpness, probability = values
            if pair in asked:
                self.pairs[pair] = dict(
                    zip(MEASURES, (probability, cosine, coverage, sharpness), strict=True)
                )
            # Judged pairs come before all that have a cosine only.
            likely = cosine - 1.0 if probability is None else probability
            self.near[a][b] = self.near[b][a] = likely

    def _spreads(self) -> dict[str, Spread]:
        table = self._connection.sql(_SPREAD).to_arrow_table()
        same = np.array(table["same_identity"].to_pylist(), dtype=bool)
        found = {}
        for name in MEASURES:
            values = np.array(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)
            known = np.isfinite(values)
            if known.any():
                one, two = (np.sort(values[known & chosen]) for chosen in (same, ~same))
                found[name] = Spread(_edges(name, values[known]), one, two, name in _LOGARITHMIC)
        return found


def _edges(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the bins of a measure end, from its least values to its largest, outliers aside."""
    if name == "probability":
        return np.linspace(0.0, 1.0, _BINS + 1)
    low, high = np.quantile(values, [0.002, 0.98 if name in _LOGARITHMIC else 0.998])
    if name in _LOGARITHMIC:
        low = max(low, values[values > 0].min(initial=1.0))
        return np.geomspace(low, max(high, low * (1 + 1e-9)), _BINS + 1)
    return np.linspace(low, max(high, low + 1e-9), _BINS + 1)


def picture_key(photo: Row) -> str:
    """What names a photo's pictures in addresses: 16 hex digits of its id and its chip."""
    text = f"{photo['photo_id']}\0{photo['chip_id']}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
