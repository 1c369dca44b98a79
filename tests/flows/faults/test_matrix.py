"""The fault matrix by pytest: all of it is slow.

By default one fault is tried on what the other tests of the flow share.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.finished_runs import Finished
from tests.flows.faults import matrix
from tests.flows.faults.course import Course
from tests.flows.faults.fault import Fault
from tests.flows.faults.matrix import FAULTS, SEEDS, main
from tests.flows.faults.site import Site, site
from tests.flows.faults.trial import Result, conduct, message, share_of, strange
from tests.small_catalogue import TINY


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A run on twelve photos, which nothing disturbed."""
    with site(tmp_path_factory.mktemp("faults")) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disturbed_run_ends_well_and_goes_on(fault: str, seed: int, place: Site) -> None:
    if why := FAULTS[fault].missing():
        pytest.skip(why)
    result = conduct(FAULTS[fault], seed, place)
    assert result.fell == (), result.moment


def test_a_killed_worker_is_replaced(
    small: Path, undisturbed: Finished, server: str, scheduler: str, tmp_path: Path
) -> None:
    course = Course.of(small, Path(undisturbed.warehouse.root), TINY)
    # Late in the run, where there is little left to do; the slow tests strike elsewhere.
    result = conduct(FAULTS["worker"], 3, Site(tmp_path, course, server, scheduler))
    assert result.fell == (), result.moment


def test_moments_are_spread_over_the_run() -> None:
    for fault in FAULTS.values():
        shares = sorted(share_of(fault, seed) for seed in range(SEEDS))
        gaps = [b - a for a, b in zip(shares, [*shares[1:], shares[0] + 1], strict=True)]
        assert max(gaps) < 0.4


def test_a_matrix_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[tuple[str, int]] = []

    def stopped_at_the_third(fault: Fault, seed: int, place: None) -> Result:
        tried.append((fault.name, seed))
        if len(tried) == 3:
            raise KeyboardInterrupt
        return Result(
            fault.name, seed, ("fell over",) if tried == [("worker", 0)] else (), "in embed", 0, 2.0
        )

    monkeypatch.setattr(matrix, "site", nullcontext)
    monkeypatch.setattr(matrix, "conduct", stopped_at_the_third)
    words = ["--seeds", "2", "--only", "worker,driver", "--resume", str(tmp_path / "faults.jsonl")]
    with pytest.raises(KeyboardInterrupt):
        main(words)
    assert main(words) == 1
    assert tried == [("worker", 0), ("driver", 0), ("worker", 1), ("worker", 1), ("driver", 1)]
    said = capsys.readouterr().out
    assert "| fell | held | 1 of 2 | 2 s |" in said
    assert "worker, seed 0, in embed: fell over" in said


def test_what_a_good_run_may_say_and_what_a_message_is() -> None:
    said = "note: x\n\nembed     11 photos in 4 shards  (3.3 s)\nphotos 12 = embedded 11 + failed 1\nreport: w/r.html\n"
    assert strange(said) == []
    assert strange(f"{said}distributed.nanny - WARNING\n") == ["distributed.nanny - WARNING"]
    assert message(f"{said}pairx: no room\n  cure: make some\n") == "pairx: no room\n  cure: make some\n"
    assert message(said) == ""
