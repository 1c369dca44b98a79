"""A local matcher registered from outside: what it must be known by, and its evidence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.commands.evaluate import _matchers
from flows.options import description
from pairx_engine.errors import EngineError
from pairx_engine.local.evidence import local_evidence
from pairx_engine.local.features import LocalMatcher, no_matches, require_view, strongest_features
from pairx_engine.local.registry import LOCAL_MATCHERS, Listed, load_local_matcher
from schemas.errors import SettingsError
from schemas.settings import Settings, load_settings
from tasks.evaluation.candidates import sweep_of
from tasks.job import matcher_of, prepare_job
from tasks.store.warehouse import Warehouse

ROOT = Path(__file__).resolve().parents[2]


class Corners:
    """Finds saturated pixels, and matches those of one colour: enough for photos drawn of coloured dots."""

    name = "corners"
    min_inliers = 4
    threads = True

    def __init__(self, max_keypoints):
        self.max_keypoints = max_keypoints

    def extraction_identity(self):
        return {"extractor": "corners.v1", "max_keypoints": self.max_keypoints}

    def identity(self):
        return {"matcher": self.name, **self.extraction_identity()}

    def extract(self, view):
        require_view(view)
        rows, columns = np.nonzero(view.max(axis=2))
        colours = view[rows, columns].astype(np.float32)
        points = np.stack([columns, rows], axis=1) + 0.5
        size = (view.shape[1], view.shape[0])
        return strongest_features(points, colours, colours.sum(axis=1), size, self.max_keypoints)

    def match(self, first, second):
        same = (first.descriptors[:, None] == second.descriptors[None]).all(axis=2)
        return np.argwhere(same) if same.size else no_matches()


def load(folder, device, max_keypoints) -> LocalMatcher:
    return Corners(max_keypoints)


CORNERS = Listed("corners", "a toy", load, needs_weights=False)


@pytest.fixture
def toy(monkeypatch):
    """Registers the toy and takes it out again."""
    monkeypatch.setitem(LOCAL_MATCHERS, "corners", CORNERS)


def drawn(shift):
    """A view (40, 60, 3) with nine dots of nine colours, moved to the right by some pixels."""
    view = np.zeros((40, 60, 3), dtype=np.uint8)
    for i in range(9):
        view[5 + 12 * (i // 3), 4 + shift + 17 * (i % 3)] = (20 * i + 20, 255 - 20 * i, 100)
    return view


def test_evidence_is_made_with_it(toy):
    matcher = load_local_matcher("corners", max_keypoints=20)
    first, second = (matcher.extract(drawn(shift)) for shift in (0, 6))
    found = local_evidence(matcher, first, second, (20, 30))
    assert (found.n_matches, found.n_inliers, found.reason) == (9, 9, None)
    # Chips of half the views' size: six pixels there are three here.
    assert found.matrix / found.matrix[2, 2] == pytest.approx(
        np.array([[1, 0, 3], [0, 1, 0], [0, 0, 1]]), abs=1e-3
    )
    assert local_evidence(matcher, first, matcher.extract(0 * drawn(0)), (20, 30)).reason


def test_a_job_and_its_sweep_use_it(toy, tmp_path):
    job = prepare_job(Warehouse(str(tmp_path)), Settings(matcher="corners", max_keypoints=77))
    other = prepare_job(Warehouse(str(tmp_path)), Settings(max_keypoints=77))
    assert matcher_of(job).identity() == Corners(77).identity()
    assert job.prints.keypoints != other.prints.keypoints
    assert job.prints.scores != other.prints.scores
    assert job.prints.embeddings == other.prints.embeddings
    assert sweep_of(other, ["backbone.blocks.2"]).matchers == (("corners", None), ("sift", None))


def test_settings_and_errors_know_it(toy):
    assert load_settings(overrides={"matcher": "corners"}).matcher == "corners"
    assert "corners (a toy)" in description("matcher", Settings.model_fields["matcher"])
    with pytest.raises(SettingsError, match="matcher = 'orb'.*'superpoint\\+lightglue' or 'corners'"):
        load_settings(overrides={"matcher": "orb"})
    with pytest.raises(EngineError, match="unknown local matcher 'orb'; choose one of sift, .*, corners"):
        load_local_matcher("orb")
    assert _matchers(["corners"]) == {"corners": None}
    with pytest.raises(SettingsError, match="sift, .*, corners"):
        _matchers(["orb"])


def test_settings_forget_it():
    with pytest.raises(SettingsError, match="matcher = 'corners'"):
        load_settings(overrides={"matcher": "corners"})


def test_the_command_line_offers_it():
    code = (
        "from pairx_engine.local.registry import LOCAL_MATCHERS, Listed; "
        "LOCAL_MATCHERS.register(Listed('corners', 'a toy', None)); from flows.cli.main import main; main()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, "run", "--help"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    )  # fmt: skip
    assert "corners (a toy)" in shown.stdout, shown.stderr
