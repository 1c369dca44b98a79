"""Tables of judgements: pairs, photos, names, the whole catalogue, and the judging model.

There is one judgement per state of the catalogue. `basis` counts the evidence that it rests on, which only
grows: of two judgements of one state, the one with more evidence counts.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.tables.columns import BOOL, F64, I32, I64, PAIR_KEY, STRING, Table, column, required

JUDGE_VERSION = 2
"""Raised when the same evidence would give another judgement; part of the judgements' fingerprint."""
STRINGS = pa.list_(STRING)
_OF_A_STATE = (
    required("state", STRING, "hash of the catalogue state that was judged"),
    required("basis", I64, "scored pairs, signals, compared pictures and verdicts stored when it was judged"),
)
_ODDS = "natural log of the odds"


def _table(name: str, about: str, key: tuple[str, ...], *columns: pa.Field) -> Table:
    return Table(
        name,
        about,
        ("state", "basis", *key),
        pa.schema([*_OF_A_STATE, *columns]),
        fingerprint="judgements",
    )


JUDGES = _table(
    "judges",
    "one row per number of the model that judged: weights by fold and term, shares of signals, parameters of the names",
    ("part", "fold_a", "fold_b", "species", "term"),
    required(
        "part",
        STRING,
        "weight of a term of the embeddings, trust in a signal (0 = no say), level: what levels matched pairs, or names: parameters "
        "of wrong names",
    ),
    column(
        "fold_a", I32, "with fold_b: the folds of animals that the weight was learned without; null otherwise"
    ),
    column("fold_b", I32, "see fold_a"),
    column("species", STRING, "species that the weight is for; null for all others"),
    required("term", STRING, "what the number belongs to"),
    required("value", F64, "the number"),
)
RELIABILITY = _table(
    "reliability",
    "one row per bin of judged pairs of equal count, judged without either animal: stated probability and share of one name",
    ("bin",),
    required("bin", I32, "1 = least likely one animal"),
    required("pairs", I64, "pairs in the bin"),
    required("stated", F64, "mean probability of one animal"),
    required("found", F64, "share that has one name"),
)
JUDGED_CATALOGUES = _table(
    "judged_catalogues",
    "one row per judged state: how many names are wrong, how many animals there are, how far probabilities can be believed",
    (),
    required("photos", I64, "photos that were judged"),
    required("names", I64, "names among them"),
    required("wrong_names", F64, "expected number of photos under a wrong name"),
    required("wrong_names_low", F64, "lower end of the interval that holds it nine times in ten"),
    required("wrong_names_high", F64, "upper end of that interval"),
    column(
        "sensitivity",
        F64,
        "by how much wrong_names grows for each name that the judgement itself makes wrong, 0 to 1; null where it can make none",
    ),
    column("animals", F64, "expected number of animals among photos with a name"),
    column("animals_low", F64, "lower end of the interval that holds it nine times in ten"),
    column("animals_high", F64, "upper end of that interval"),
    column(
        "calibration_error", F64, "mean of |stated - found| over the bins of `reliability`, weighted by pairs"
    ),
    column("brier", F64, "Brier score of the pairs' probabilities, names as given"),
    column("brier_cosine", F64, "that of an isotonic calibration of the cosine, fitted likewise"),
)
JUDGED_NAMES = _table(
    "judged_names",
    "one row per pair of names that may be one animal, and per name that may be two",
    ("kind", "name_a", "name_b"),
    required("kind", STRING, "two_names_one_animal or one_name_two_animals"),
    required("name_a", STRING, "the name, or the first of two"),
    required(
        "name_b",
        STRING,
        "the second name; of a name that may be two, the one that its smaller side belongs to, or empty",
    ),
    required("photos_a", STRINGS, "photos of the one side"),
    required("photos_b", STRINGS, "photos of the other side"),
    required("log_odds", F64, f"{_ODDS} that the names are wrong so"),
    required("probability", F64, "that the names are wrong so"),
    required("pairs", I64, "pairs of photos across that were looked at"),
    required("supporting_photos_a", STRINGS, "first photos of the pairs that say so most"),
    required("supporting_photos_b", STRINGS, "second photos of those pairs"),
    required("supporting_pairs", STRINGS, "pair_id of those pairs, whether or not they were ever scored"),
)
JUDGED_PHOTOS = _table(
    "judged_photos",
    "one row per photo: the probability that its name is wrong, and the name that it should have",
    ("photo_id",),
    required("photo_id", STRING, "image_id of the catalogue"),
    column("identity", STRING, "its name when it was judged; null when unknown"),
    column("log_odds", F64, f"{_ODDS} that the name is wrong; null without a name"),
    column("probability", F64, "that the name is wrong; null without a name"),
    column(
        "proposed_name",
        STRING,
        "the likeliest name other than the given one; null where none speaks",
    ),
    column(
        "proposed_share",
        F64,
        "probability of the proposed name among all that can be true instead, a new animal too",
    ),
    column(
        "own_voice", F64, "log of the mean odds of one animal over the photos of its own name; null without"
    ),
    column("rival_voice", F64, "the same for the likeliest other name; null without"),
    required(
        "undefended",
        BOOL,
        "whether no comparable photo of its name could speak for it: its probability says nothing",
    ),
    required(
        "told_by", STRING, "names or another row of the judgement that states the same defect; empty if none"
    ),
)
CANDIDATES = _table(
    "candidates",
    "one row per photo of an unknown animal and name that it may have, and one for a new animal",
    ("photo_id", "rank"),
    required("photo_id", STRING, "image_id of the catalogue"),
    required("rank", I32, "1 = likeliest"),
    column("name", STRING, "name of the animal; null for a new animal"),
    required("probability", F64, "that the photo shows this animal"),
)
JUDGEMENTS = _table(
    "judgements",
    "one row per scored pair: the probability that it shows one animal, whatever the names",
    ("pair_id",),
    *PAIR_KEY,
    required("log_odds", F64, f"{_ODDS} of one animal against two"),
    required("probability", F64, "that the pair shows one animal"),
    required(
        "terms",
        STRINGS,
        "what was taken into account: terms of the embeddings, and signals of matching by name",
    ),
    required("added", pa.list_(F64), "what each term added to log_odds; 0 for what is missing or has no say"),
)

JUDGEMENT_TABLES = (
    JUDGES,
    RELIABILITY,
    JUDGED_CATALOGUES,
    JUDGED_NAMES,
    JUDGED_PHOTOS,
    CANDIDATES,
    JUDGEMENTS,
)
