"""What the views and their derived columns mean, in the words that `pairx sql` prints.

Stored columns are described once, in `schemas/tables.py`; here stand the columns that the SQL files compute.
"""

from __future__ import annotations

from schemas.tables import TABLES

VIEWS: dict[str, str] = {
    "photos": "photos of the catalogue as it is now",
    "embeddings": "embeddings of the current photos",
    "keypoints": "local features of the current photos",
    "pairs": "pairs that today's catalogue calls for, with ranks, names, and why each was chosen",
    "pair_scores": "every current pair with its scores at the layer that ranks: start here",
    "scores": "scores of current pairs, one row per layer",
    "matches": "mutual matches of current pairs as parallel lists, most relevant first",
    "relevances": "relevance grids of current pairs",
    "explanations": "pictures of current pairs that were drawn",
    "failures": "what could not be processed and still cannot",
    "duplicates": "the same picture twice in the catalogue, whatever the names",
    "identities": "one row per name: photos, encounters, and how well its photos agree",
    "typical": "usual cosines, residuals and coverages by same and different name, per species and for all",
    "evidence": "current pairs with how much their pictures speak for one animal, in [0, 1]",
    "suspects": "ranked contradictions between pictures and names",
    "runs": "runs of this warehouse with their last status, newest first",
    "current_run": "one row: the run whose fingerprints all views look at",
}
"""View -> one sentence. The order is the one in which they are listed."""

_PAIR_COLUMNS: dict[str, str] = {
    "identity_a": "current name of photo_a; null when unknown",
    "identity_b": "current name of photo_b; null when unknown",
    "same_identity": "whether both have one name; null when either is unknown",
    "viewpoint_a": "side of the animal in photo_a",
    "viewpoint_b": "side of the animal in photo_b",
    "species_a": "species of photo_a",
    "species_b": "species of photo_b",
    "rank_a": "place of photo_b among photo_a's neighbours; null beyond top_k",
    "rank_b": "place of photo_a among photo_b's neighbours; null beyond top_k",
    "same_name_rank_a": "the same among photos of photo_a's name; null beyond same_name_k",
    "same_name_rank_b": "the same among photos of photo_b's name; null beyond same_name_k",
    "why": "why the pair is here: top_k, same_name, copy",
}
_DERIVED: dict[str, dict[str, str]] = {
    "": {
        "fingerprint": "hash of all settings that the row's numbers depend on",
        "shard": "file that the row is stored in",
    },
    "pairs": _PAIR_COLUMNS,
    "pair_scores": _PAIR_COLUMNS,
    "duplicates": {
        **_PAIR_COLUMNS,
        "same_file": "whether file, box and rotation are the same, byte for byte",
        "hash_distance": "differing bits (0-4) of the two perceptual hashes; 0 for the same file",
        "path_a": "path of photo_a",
        "path_b": "path of photo_b",
    },
    "identities": {
        "photos": "photos under the name",
        "encounters": "encounters under the name",
        "viewpoints": "sides that were seen",
        "first_taken_at": "first date under the name",
        "last_taken_at": "last date under the name",
        "same_name_pairs": "scored pairs within the name",
        "mean_cosine": "mean cosine of those pairs",
        "mean_match_coverage": "mean match coverage (Eq. 5) of those pairs",
        "mean_inverted_residual_mean": "mean inverted residual mean (Eq. 4) of those pairs, 1 / chip pixels",
        "mean_n_inliers": "mean number of local matches that the homographies of those pairs explain",
    },
    "typical": {
        "species": "species, or null for the whole catalogue; species with few pairs have no row",
        "different_pairs": "comparable pairs of two names",
        "same_pairs": "comparable pairs of one name",
        "different_cosine": "median cosine of pairs of two names",
        "high_different_cosine": "cosine that one in ten pairs of two names exceeds",
        "same_cosine": "median cosine of pairs of one name",
        "different_sharpness": "median inverted residual mean of pairs of two names; 0 without homography",
        "high_different_sharpness": "inverted residual mean that one in ten pairs of two names exceeds",
        "same_sharpness": "median inverted residual mean of pairs of one name; 0 without homography",
        "different_coverage": "median match coverage of pairs of two names",
        "high_different_coverage": "match coverage that one in ten pairs of two names exceeds",
        "same_coverage": "median match coverage of pairs of one name",
        "high_same_inliers": "inliers that one in ten pairs of one name exceeds",
    },
    "evidence": {
        **_PAIR_COLUMNS,
        "comparable": "whether both photos may show one side of an animal",
        "similarity": "standing of the cosine: 0 typical of two names, 1 typical of one name",
        "sharpness": "standing of the inverted residual mean",
        "coverage": "standing of the match coverage",
        "inliers": "n_inliers, or 0 where no homography was accepted",
        "geometry": "inliers / (inliers + 8)",
        "plausibility": "mean of sharpness, coverage and geometry",
        "evidence": "sqrt(similarity x plausibility): how much the pictures speak for one animal",
        "sameness": "how much they look like one picture rather than two of one animal, in [0, 1]",
    },
    "runs": {
        "started_at": "when the run started",
        "updated_at": "when its last status was written",
        "seconds": "seconds between the two",
    },
    "current_run": {
        "same_species": "whether pairs are restricted to one species",
        "same_viewpoint": "whether pairs are restricted to one viewpoint",
    },
}
_STORED: dict[str, tuple[str, ...]] = {
    "pair_scores": ("pairs", "scores"),
    "evidence": ("pairs", "scores"),
    "duplicates": ("pairs",),
    "identities": ("photos",),
    "current_run": ("runs",),
}
"""View -> tables that its stored columns come from, where that is not the table of the same name."""


def describe_view(view: str) -> str:
    """One sentence about a view or stored table; empty when unknown."""
    level, _, table = view.partition("_")
    if view not in VIEWS and level in ("all", "run") and table in TABLES:
        scope = "every committed row" if level == "all" else "every row under the current run's fingerprints"
        return f"{table}: {scope}"
    return VIEWS.get(view, "")


def describe_column(view: str, column: str) -> str:
    """One sentence about a column of a view or stored table; empty when unknown."""
    name = view if view in VIEWS else view.removeprefix("all_").removeprefix("run_")
    derived = {**_DERIVED[""], **(_DERIVED.get(view, {}))}
    if column in derived:
        return derived[column]
    for table in _STORED.get(name, (name,)):
        if table in TABLES and column in TABLES[table].schema.names:
            metadata = TABLES[table].schema.field(column).metadata
            return str(metadata[b"about"].decode())
    return ""
