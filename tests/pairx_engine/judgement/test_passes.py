"""The passes of the judgement: what each doubts at the least, and whom it believes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pairx_engine.judgement import judge
from pairx_engine.judgement.inputs import UNKNOWN
from tests.pairx_engine.judgement.drawn_evidence import drawn


def test_each_pass_doubts_every_name_a_little_less_but_none_that_a_person_called_right(monkeypatch):
    found = drawn(0, noise=1.0, wrong=0.1)
    verdict = np.full(len(found.photos), UNKNOWN)
    verdict[:3] = 1
    photos = replace(found.photos, verdict=verdict)
    asked, judged = [], judge.judge_pairs

    def record(photos, pairs, doubt):
        asked.append(doubt)
        return judged(photos, pairs, doubt)

    monkeypatch.setattr(judge, "judge_pairs", record)
    judge.judge_evidence(photos, found.pairs, found.vectors)
    assert len(asked) == len(judge.LEAST_DOUBT) >= 3
    assert list(judge.LEAST_DOUBT) == sorted(judge.LEAST_DOUBT, reverse=True)
    for doubt, least in zip(asked, judge.LEAST_DOUBT, strict=True):
        assert (doubt[:3] < 1e-6).all()
        assert doubt[3:].min() == least
    assert (asked[0][3:] == judge.LEAST_DOUBT[0]).all()
    wrong = found.wrong[3:]
    assert asked[-1][3:][wrong].mean() > 0.7 > 0.1 > asked[-1][3:][~wrong].mean()
