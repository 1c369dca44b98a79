"""The files of an evaluation: all of them come back as they were written, and none can hurt a reader."""

from __future__ import annotations

import csv
import io
import math
import tomllib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairx_engine.evaluation.bootstrap import Interval
from pairx_engine.relevance.presets import PRESETS, REDUCTIONS
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings, load_settings
from tasks.evaluation.files import (
    EvaluationFileError,
    read_statistics,
    settings_toml,
    write_evaluation,
)
from tasks.pages.evaluation import render_evaluation
from tests.tasks.evaluation.drawn_evaluation import (
    NO_PAIRS,
    candidate,
    choice,
    empty_evaluation,
    evaluation,
    outlier,
    statistic,
    statistics,
)

ALWAYS = ["table.parquet", "table.csv", "outliers.parquet", "outliers.csv", "pairs.parquet", "pairs.csv"]
PAIRS = pa.table({"pair_id": ["x", "y"], "cosine": [0.25, -0.5], "rank_a": [1, None]})


def write(out, pairs=PAIRS, **changes):
    return write_evaluation(evaluation(**{"scatter": NO_PAIRS, **changes}), out, pairs)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_all_files_are_written_and_returned(tmp_path):
    out = tmp_path / "new" / "folder"
    written = write(out)
    expected = [*ALWAYS, "choice.parquet", "choice.csv", "faithfulness.csv", "report.html"]
    assert [path.name for path in written] == expected
    assert sorted(path.name for path in out.iterdir()) == sorted(expected)
    assert (out / "report.html").read_text(encoding="utf-8") == render_evaluation(
        evaluation(scatter=NO_PAIRS)
    )


def test_an_evaluation_without_choice_and_faithfulness_leaves_none_of_an_earlier_one(tmp_path):
    write(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    written = write_evaluation(empty_evaluation(), tmp_path, PAIRS)
    assert [path.name for path in written] == [*ALWAYS, "report.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*ALWAYS, "report.html", "mine.txt"])


def test_statistics_come_back_as_they_were(tmp_path):
    rows = [
        *statistics(1),
        *statistics(2, species="zebra"),
        statistic(value=None),
        statistic(value=-1e-9, low=None),
    ]
    write(tmp_path, statistics=rows)
    assert read_statistics(tmp_path) == rows


def test_what_is_not_a_number_comes_back_as_none(tmp_path):
    write(tmp_path, statistics=[statistic(value=math.nan, low=math.nan, high=0.5)])
    assert read_statistics(tmp_path) == [statistic(value=None, low=None, high=0.5)]


def test_statistics_of_nothing_come_back_as_nothing(tmp_path):
    write_evaluation(empty_evaluation(), tmp_path, PAIRS)
    assert read_statistics(tmp_path) == []


def test_what_was_read_back_can_stand_beside_another_evaluation(tmp_path):
    write(tmp_path, statistics=statistics(7, dataset="far herd"))
    page = render_evaluation(evaluation(scatter=NO_PAIRS, beside=read_statistics(tmp_path)))
    assert "far herd" in page


def damaged(change):
    table = pa.Table.from_pylist([vars(statistic())])
    buffer = io.BytesIO()
    pq.write_table(change(table), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no evaluation"),
        (b"", "cannot be read"),
        (b"PAR1 and then nothing of the kind", "cannot be read"),
        (damaged(lambda t: t.drop_columns(["statistic", "low"])), "no column statistic, low"),
        (damaged(lambda t: t.set_column(5, "value", pa.array(["much"]))), "no table of an evaluation"),
        (
            damaged(lambda t: t.set_column(2, "score", pa.array([None], pa.string()))),
            "no table of an evaluation",
        ),
    ],
)
def test_a_folder_without_a_readable_table_is_refused_with_a_cure(tmp_path, content, words):
    if content is not None:
        (tmp_path / "table.parquet").write_bytes(content)
    with pytest.raises(EvaluationFileError) as caught:
        read_statistics(tmp_path)
    assert words in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert "pairx evaluate" in caught.value.cure


def test_columns_that_came_later_and_other_orders_do_no_harm(tmp_path):
    def later(table):
        return table.append_column("extra", pa.array([1])).select(["extra", *reversed(table.column_names)])

    (tmp_path / "table.parquet").write_bytes(damaged(later))
    assert read_statistics(tmp_path) == [statistic()]


def test_a_folder_that_cannot_be_written_is_named_with_a_cure(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EvaluationFileError) as caught:
            write(out)
        assert str(out) in caught.value.message
        assert caught.value.cure
        assert isinstance(caught.value, PairxError)
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_write_that_fails_leaves_the_earlier_file_whole_and_no_rest(tmp_path, monkeypatch):
    write(tmp_path)
    before = (tmp_path / "pairs.parquet").read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(EvaluationFileError, match="No space left"):
        write(tmp_path, pa.table({"pair_id": ["z"]}))
    assert (tmp_path / "pairs.parquet").read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".parquet", ".csv", ".html")]


def test_nothing_is_written_when_a_figure_is_no_picture(tmp_path):
    with pytest.raises(ValueError, match="no WebP"):
        write(tmp_path / "out", figures={"pair1": b"nothing"})
    assert not (tmp_path / "out").exists()


def test_pairs_are_written_as_they_are(tmp_path):
    write(tmp_path)
    assert pq.read_table(tmp_path / "pairs.parquet").equals(PAIRS)
    assert (tmp_path / "pairs.csv").read_text() == "pair_id,cosine,rank_a\nx,0.25,1\ny,-0.5,\n"


def test_outliers_hold_every_field(tmp_path):
    rows = [outlier(1), outlier(2, correct=True, inverted_residual_mean=None, n_inliers=None)]
    write(tmp_path, outliers=rows)
    assert pq.read_table(tmp_path / "outliers.parquet").to_pylist() == [vars(row) for row in rows]
    second = rows_of((tmp_path / "outliers.csv").read_text())[1]
    assert (second["rank"], second["correct"], second["inverted_residual_mean"]) == ("2", "true", "")
    assert float(second["cosine"]) == rows[1].cosine


def test_choice_is_flat_in_order_and_says_which_is_which(tmp_path):
    write(tmp_path)
    rows = pq.read_table(tmp_path / "choice.parquet").to_pylist()
    assert [row["rank"] for row in rows] == [1, 2, 3]
    for row, given in zip(rows, choice().candidates, strict=True):
        assert {name: row[name] for name in given.settings} == given.settings
        assert {score: row[f"auc_{score}"] for score in given.auc} == given.auc
        assert {score: row[f"delta_{score}"] for score in given.delta} == given.delta
        assert (row["criterion"], row["seconds"]) == (given.criterion, given.seconds)
    assert [row["is_default"] for row in rows] == [False, True, False]
    assert [row["is_chosen"] for row in rows] == [row["is_best"] for row in rows] == [True, False, False]
    assert len(rows_of((tmp_path / "choice.csv").read_text())) == 3


def test_names_from_outside_are_neutralised_in_every_csv(tmp_path):
    evil = "=cmd|' /C calc'!A0"
    write(
        tmp_path,
        pa.table({"identity_a": [evil]}),
        statistics=statistics(dataset=evil, species=evil),
        outliers=[outlier(photo_a=evil, identity_b=evil)],
        choice=choice(candidates=(candidate(evil),)),
    )
    for name in ("table.csv", "outliers.csv", "pairs.csv", "choice.csv"):
        cells = [cell for row in csv.reader(io.StringIO((tmp_path / name).read_text())) for cell in row]
        assert f"'{evil}" in cells
        assert not [cell for cell in cells if cell.startswith("=")]
    assert pq.read_table(tmp_path / "pairs.parquet")["identity_a"].to_pylist() == [evil]


def loaded(tmp_path, text):
    path = tmp_path / "chosen.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_chosen_settings_are_loaded_as_they_were_chosen(tmp_path, preset, reduction):
    chosen = candidate("backbone.blocks.4", preset, homography="least_squares", reduction=reduction)
    text = settings_toml(choice(chosen=chosen), Settings(preset="published", layers=("another",)))
    settings = loaded(tmp_path, text)
    own = PRESETS[preset].reduction
    # Coverage takes magnitudes: abs_of_sum and signed_sum give the same. The preset's own reduction needs no
    # new fingerprint.
    same = reduction == own or ({reduction, own} == {"abs_of_sum", "signed_sum"} and own == "signed_sum")
    assert settings.reduction == (None if same else reduction)
    expected = {"layers": ("backbone.blocks.4",), "preset": preset, "homography": "least_squares"}
    assert settings == Settings(**expected, reduction=settings.reduction)
    assert (own if same else reduction) in text


def test_what_the_evidence_hangs_on_is_taken_from_the_base(tmp_path):
    base = Settings(
        model="some/model", model_revision="abc", precision="bfloat16", view_side=512, max_keypoints=2048,
        homography_threshold=5.0, matcher="aliked+lightglue", matcher_weights='C:\\we"ights\x7f é', top_k=9, workers=3,
    )  # fmt: skip
    settings = loaded(tmp_path, settings_toml(choice(chosen=candidate(matcher="aliked+lightglue")), base))
    chosen = {"preset": "published", "layers": ("blocks.3",)}
    carried = base.model_copy(update={"top_k": 5, "workers": None, **chosen})
    assert settings == carried


@pytest.mark.parametrize(("matcher", "needed"), [("sift", False), ("xfeat+lighterglue", True)])
def test_weights_of_another_matcher_are_not_taken_over(tmp_path, matcher, needed):
    base = Settings(matcher="aliked+lightglue", matcher_weights="/weights/aliked")
    text = settings_toml(choice(chosen=candidate("blocks.1", matcher=matcher)), base)
    settings = loaded(tmp_path, text)
    assert (settings.matcher, settings.matcher_weights) == (matcher, None)
    assert ("# matcher_weights is needed too" in text) == needed


def test_settings_that_nobody_chose_stay_those_of_the_base(tmp_path):
    chosen = replace(candidate(), settings={"layer": "blocks.2"})
    assert tomllib.loads(settings_toml(choice(chosen=chosen), Settings())) == {"layers": ["blocks.2"]}
    base = Settings(
        preset="paper", reduction="positive_sum", matcher="disk+lightglue", matcher_weights="/weights"
    )
    assert loaded(tmp_path, settings_toml(choice(chosen=chosen), base)) == base.model_copy(
        update={"layers": ("blocks.2",)}
    )


def test_a_default_that_is_kept_leaves_everything_as_it_was(tmp_path):
    base = Settings(
        model="some/model", layers=("blocks.3", "blocks.1"), reduction="signed_sum", matcher="aliked+lightglue",
        matcher_weights="/weights", max_pixels=10**6, same_species=True, top_k=9,
    )  # fmt: skip
    kept = candidate(matcher="aliked+lightglue")
    settings = loaded(tmp_path, settings_toml(choice(default=kept, best=kept, chosen=kept), base))
    assert settings == base.model_copy(update={"top_k": 5})


def test_the_presets_own_reduction_undoes_that_of_the_base(tmp_path):
    chosen = candidate("blocks.1", preset="published", reduction="abs_of_sum")
    assert (
        loaded(tmp_path, settings_toml(choice(chosen=chosen), Settings(reduction="sum_of_abs"))).reduction
        is None
    )


def test_the_evidence_stands_in_comments_that_nothing_can_leave(tmp_path):
    reason = 'first\nmodel = "evil"\r\n\x00\x1b[31m ' + "long " * 60
    text = settings_toml(choice(reason=reason), Settings())
    assert loaded(tmp_path, text).model == "embedded"
    comments = [line for line in text.splitlines() if line.startswith("#")]
    for number in ("0.7830", "0.7410", "0.7690", "0.7380", "0.0130", "0.0620", "5 folds"):
        assert any(number in line for line in comments), number
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_an_undefined_interval_does_not_spoil_the_file(tmp_path):
    text = settings_toml(choice(difference=Interval(math.nan, math.nan, 200, 0)), Settings())
    assert loaded(tmp_path, text).layers == ("blocks.4",)


@pytest.mark.parametrize(
    "wrong", [{"preset": "best"}, {"matcher": "luck"}, {"reduction": "none"}, {"speed": "high"}]
)
def test_choices_that_are_no_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        settings_toml(choice(chosen=candidate(**wrong)), Settings())
