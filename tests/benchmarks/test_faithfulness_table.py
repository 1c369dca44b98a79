"""The table of the benchmark of explanations: the most faithful on top, and who failed with the reason."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.faithfulness.__main__ import _report
from tests.benchmarks.faithfulness.cases import Case
from tests.benchmarks.faithfulness.results import ranked


def row(method: str, number: int, gap: float, **more: Any) -> dict[str, Any]:
    names = {"identity_a": f"animal {number % 3}", "identity_b": f"animal {number % 3}"}
    pair = {"pair_id": f"{number:064x}", "correct": True, **names}
    return {"case": "herd/model", "method": method, **pair, "values": {"gap": gap, "seconds": 0.5}, **more}


def test_methods_are_ranked_and_those_that_failed_are_listed() -> None:
    rows = [
        row(method, number, gap + number / 1000)
        for method, gap in (("random", 0.0), ("gradient", 0.2), ("lrp_published", 0.1))
        for number in range(6)
    ]
    failed = row("grad_cam", 0, 0.0, failed="the layer gives no cells") | {"values": {}}
    assert [r.method for r in ranked(rows, 12) if r.measure == "gap"] == [
        "gradient",
        "lrp_published",
        "random",
    ]
    lines = _report(Case("herd", "model"), [*rows, failed], 12).splitlines()
    methods = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert methods == ["method", "gradient", "lrp_published", "random"]
    (best,) = (line for line in lines if line.startswith("| gradient"))
    assert best.split("|")[2].strip().startswith("0.203 [")
    assert best.split("|")[-2].strip() == "6"
    assert lines[-1] == "* grad_cam: the layer gives no cells"
    assert "| gradient |" not in _report(Case("herd", "model"), [failed], 12)


def test_a_map_that_knows_nothing_is_not_held_against_another_one() -> None:
    rows = [row(method, n, gap) for method, gap in (("centre", 0.3), ("gradient", 0.2)) for n in range(6)]
    rows += [row("random", n, 0.0) for n in range(2)]
    assert {r.method: r.n_pairs for r in ranked(rows, 12) if r.measure == "above_controls"} == {"gradient": 6}
