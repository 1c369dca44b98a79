"""Files of an evaluation: page, tables as Parquet and CSV, and recommended settings as TOML.

Parquet holds every value as it is. CSV is for spreadsheets too; `schemas.foreign_text` says how texts change
in it.
"""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairx_engine.evaluation.choice import Candidate, Choice
from pairx_engine.local.registry import LOCAL_MATCHERS
from pairx_engine.relevance.presets import PRESETS
from schemas.errors import PairxError
from schemas.foreign_text import printable
from schemas.settings import Settings, load_settings
from tasks.pages.evaluation import render_evaluation
from tasks.pages.evaluation_values import SCORES, Evaluation, Statistic
from tasks.sql.csv_text import csv_lines
from tasks.store.shard_files import put_in_place

_TEXTS, _COUNTS = pa.string(), pa.int64()
STATISTICS = pa.schema(
    [
        pa.field("dataset", _TEXTS, nullable=False),
        pa.field("species", _TEXTS),
        pa.field("score", _TEXTS, nullable=False),
        pa.field("statistic", _TEXTS, nullable=False),
        pa.field("variant", _TEXTS, nullable=False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("n_correct", _COUNTS, nullable=False),
        pa.field("n_incorrect", _COUNTS, nullable=False),
        pa.field("n_missing", _COUNTS, nullable=False),
    ]
)
"""Columns of ``table.parquet``, one row per `Statistic`."""
OUTLIERS = pa.schema(
    [
        ("rank", _COUNTS),
        *((name, _TEXTS) for name in ("pair_id", "photo_a", "photo_b", "identity_a", "identity_b")),
        ("correct", pa.bool_()),
        *((name, pa.float64()) for name in ("cosine", *SCORES, "z", *(f"z_{score}" for score in SCORES))),
        ("n_inliers", _COUNTS),
    ]
)
FAITHFULNESS = pa.schema(
    [
        ("method", _TEXTS),
        ("measure", _TEXTS),
        ("similar", pa.bool_()),
        ("mean", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n_pairs", _COUNTS),
    ]
)
OPTIONAL = ("choice.parquet", "choice.csv", "chosen.toml", "faithfulness.csv")
"""Files that only some evaluations have."""

_CARRIED = (
    "model",
    "model_revision",
    "resize",
    "precision",
    "view_side",
    "max_keypoints",
    "homography_threshold",
    "max_pixels",
    "same_species",
    "same_viewpoint",
    "layers",
    "preset",
    "reduction",
    "matcher",
    "homography",
)
"""Settings that the evidence depends on; those that a candidate does not name are the base's."""
_KEPT = (*_CARRIED, "matcher_weights")
"""What the file holds where the default is kept: the base's settings.

So nothing that is stored is computed again.
"""


class EvaluationFileError(PairxError, ValueError):
    """The files of an evaluation cannot be written or read."""

    exit_code = 2


def write_evaluation(
    evaluation: Evaluation, out: Path, pairs: pa.Table, chosen: str | None = None
) -> list[Path]:
    """Write the files of an evaluation to the folder `out` and return their paths.

    `pairs` is written as it is, `chosen` as `chosen.toml`. All contents are made before the first file is
    written; then each appears whole or not at all, the page last. Files of an earlier evaluation that
    this one does not have are removed. Raises `EvaluationFileError` for a folder that cannot be written,
    and ValueError for a figure that is no WebP.
    """
    page = render_evaluation(evaluation).encode()
    contents = {
        **_both("table", _table(map(asdict, evaluation.statistics), STATISTICS)),
        **_both("outliers", _table(map(asdict, evaluation.outliers), OUTLIERS)),
        **_both("pairs", pairs),
    }
    if evaluation.choice is not None:
        contents |= _both("choice", _choice_table(evaluation.choice))
    if evaluation.faithfulness:
        faithfulness = _table(map(asdict, evaluation.faithfulness), FAITHFULNESS)
        contents["faithfulness.csv"] = _csv(faithfulness).encode()
    if chosen is not None:
        contents["chosen.toml"] = chosen.encode()
    contents["report.html"] = page
    path = out
    try:
        for name in OPTIONAL:
            path = out / name
            if name not in contents:
                path.unlink(missing_ok=True)
        for name, content in contents.items():
            path = out / name
            put_in_place(path, content)
    except OSError as error:
        raise EvaluationFileError(
            f"{path} cannot be written: {error.strerror or error}",
            "name a folder that can be made and written, on a disk with room",
        ) from error
    return [out / name for name in contents]


def read_statistics(folder: Path) -> list[Statistic]:
    """The statistics that `write_evaluation` wrote to `folder`, for the table across datasets.

    Raises `EvaluationFileError` where there is no evaluation, or one whose table is damaged or of another
    form.
    """
    path = folder / "table.parquet"
    cure = "give the folder that `pairx evaluate` wrote, with its table.parquet"
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except FileNotFoundError as error:
        raise EvaluationFileError(f"{folder} holds no evaluation: there is no {path.name}", cure) from error
    except (OSError, pa.ArrowException) as error:
        raise EvaluationFileError(f"{path} cannot be read: {error}", cure) from error
    absent = [name for name in STATISTICS.names if name not in table.column_names]
    if absent:
        raise EvaluationFileError(
            f"{path} is no table of an evaluation: it has no column {', '.join(absent)}", cure
        )
    try:
        typed = table.select(STATISTICS.names).cast(STATISTICS)
        typed.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise EvaluationFileError(f"{path} is no table of an evaluation: {error}", cure) from error
    return [Statistic(**_without_nan(row)) for row in typed.to_pylist()]


def settings_toml(choice: Choice, base: Settings) -> str:
    """The chosen settings as a file for `pairx run --settings`, with the evidence as comments.

    From `base`, under which the choice was made, the file takes what the evidence depends on and is no
    default. A reduction with the same coverage as the preset's own stands in a comment, so that scores
    stored under the preset are not computed again: coverage takes magnitudes, so `abs_of_sum` equals
    `signed_sum` there. Raises `SettingsError` when the chosen values are no valid settings.
    """
    if choice.chosen.settings == choice.default.settings:
        return _as_toml(choice, {name: getattr(base, name) for name in _KEPT if _differs(base, name)}, [])
    chosen = dict(choice.chosen.settings)
    layer, reduction = chosen.pop("layer", ""), chosen.pop("reduction", "")
    values: dict[str, Any] = {name: getattr(base, name) for name in _CARRIED if _differs(base, name)}
    values |= ({"layers": [layer]} if layer else {}) | chosen
    remarks = []
    preset = chosen.get("preset", base.preset)
    own = PRESETS[preset].reduction if preset in PRESETS else ""
    if reduction and (reduction == own or (reduction, own) == ("abs_of_sum", "signed_sum")):
        values.pop("reduction", None)
        remarks.append(f"# reduction = {_toml(own)}, the preset's own")
    elif reduction:
        values["reduction"] = reduction
    matcher = chosen.get("matcher", base.matcher)
    if matcher in LOCAL_MATCHERS and LOCAL_MATCHERS[matcher].needs_weights:
        if matcher == base.matcher and base.matcher_weights is not None:
            values["matcher_weights"] = base.matcher_weights
        else:
            remarks.append(
                f"# matcher_weights is needed too: the folder with the weights of {_line(matcher)}"
            )
    return _as_toml(choice, values, remarks)


def _as_toml(choice: Choice, values: Mapping[str, Any], remarks: Sequence[str]) -> str:
    load_settings(overrides=values)
    lines = [f"{name} = {_toml(values[name])}" for name in Settings.model_fields if name in values]
    return "\n".join([*_evidence(choice), *lines, *remarks]) + "\n"


def _evidence(choice: Choice) -> list[str]:
    """Comment lines: where the settings come from, why they were chosen, and the numbers behind them."""
    interval = choice.difference
    said = [
        "Settings chosen by `pairx evaluate`, for `pairx run --settings`.",
        choice.reason,
        "Criterion: mean over both scores of the area under the ROC curve at equal cosine. On all pairs: chosen "
        f"{choice.chosen.criterion:.4f}, default {choice.default.criterion:.4f}, best {choice.best.criterion:.4f}; "
        f"best less default, interval by animal {interval.low:.4f} to {interval.high:.4f}.",
        f"On held-out animals ({choice.n_folds} folds): best of the others {choice.held_out_best:.4f}, "
        f"default {choice.held_out_default:.4f}.",
    ]
    return [f"# {line}" for text in said for line in textwrap.wrap(_line(text), 108)]


def _line(text: str) -> str:
    """A text as one line of a comment: nothing in it may end the comment or steer a terminal."""
    return printable(" ".join(text.split()))


def _differs(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, name) != Settings.model_fields[name].get_default())


def _toml(value: object) -> str:
    """A value as TOML, whose strings are those of JSON with one more character escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _choice_table(choice: Choice) -> pa.Table:
    """One flat row per candidate, best first."""
    names = list(dict.fromkeys(name for candidate in choice.candidates for name in candidate.settings))
    scores = list(dict.fromkeys(score for candidate in choice.candidates for score in candidate.auc))
    schema = pa.schema(
        [
            ("rank", _COUNTS),
            *((name, _TEXTS) for name in names),
            *((f"{kind}_{score}", pa.float64()) for kind in ("auc", "delta") for score in scores),
            ("criterion", pa.float64()),
            ("seconds", pa.float64()),
            *((f"is_{role}", pa.bool_()) for role in ("default", "best", "chosen")),
        ]
    )
    return _table((_choice_row(rank, c, choice) for rank, c in enumerate(choice.candidates, 1)), schema)


def _choice_row(rank: int, candidate: Candidate, choice: Choice) -> dict[str, Any]:
    return {
        "rank": rank,
        **candidate.settings,
        **{f"auc_{score}": value for score, value in candidate.auc.items()},
        **{f"delta_{score}": value for score, value in candidate.delta.items()},
        "criterion": candidate.criterion,
        "seconds": candidate.seconds,
        **{
            f"is_{role}": candidate.settings == getattr(choice, role).settings
            for role in ("default", "best", "chosen")
        },
    }


def _table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([_without_nan(row) for row in rows], schema=schema)


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with null for NaN, since undefined values are null in tables."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def _csv(table: pa.Table) -> str:
    return csv_lines([table.column_names, *zip(*(c.to_pylist() for c in table.columns), strict=True)])


def _both(name: str, table: pa.Table) -> dict[str, bytes]:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return {f"{name}.parquet": buffer.getvalue(), f"{name}.csv": _csv(table).encode()}
