"""Five nights of some 50 photos: what each calls new is what is new. The plain account is tried on a hand-worked pair of nights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.nights.__main__ import five_nights
from tests.benchmarks.nights.account import Seen, news
from tests.benchmarks.nights.said import in_words
from tests.small_catalogue import TINY


def suspect(rank: int, pair: str, probability: float, **changes: Any) -> dict[str, Any]:
    one, two = pair
    names = {"identity_a": "A", "identity_b": "B", "proposed_name": "B", "blamed_photo": one}
    shown = {
        "kind": "wrong_name",
        "pair_id": pair,
        "photo_a": one,
        "photo_b": two,
        "probability": probability,
    }
    return names | shown | {"rank": rank} | changes


def night(names: dict[str, str], pairs: str, *suspects: dict[str, Any], broken: str = "") -> Seen:
    asked = {("wrong_name", row["blamed_photo"]): row for row in suspects}
    return Seen(names, frozenset(names) - set(broken), frozenset(pairs.split()), asked)


def test_the_account_of_two_nights() -> None:
    then = night(
        dict.fromkeys("abcdef", "A") | {"x": "B"},
        "ax bx cx dx ex",
        suspect(1, "ax", 0.9), suspect(2, "bx", 0.2), suspect(3, "cx", 0.2), suspect(4, "dx", 0.2), suspect(5, "fx", 0.1),
    )  # fmt: skip
    now = night(
        dict.fromkeys("abcde", "A") | {"x": "B", "d": "D", "n": "A", "o": "A"},
        "ax bx cx dx ex nx ay",
        suspect(1, "ax", 0.94), suspect(2, "bx", 0.3), suspect(3, "cx", 0.2, pair_id="cy"), suspect(4, "ex", 0.03),
        suspect(5, "nx", 0.04), suspect(6, "dx", 0.2, identity_a="D"),
        broken="o",
    )  # fmt: skip
    assert news(then, now) == {
        "new_photos": {("n", "A", True), ("o", "A", False)},
        "new_pairs": {("nx",), ("ay",)},
        # a rose by .04 alone, and e, which was known and is listed now, by .03.
        "new_suspects": {
            (2, ("probability",)),
            (3, ("evidence",)),
            (5, ("evidence", "names")),
            (6, ("names",)),
        },
        "gone_suspects": {("wrong_name", "f", "withdrawn")},
        "changed_names": {("d", "A", "D")},
    }


def test_the_line_that_a_run_prints_is_read() -> None:
    line = "x\ntonight: 1 new photo, 12 new pairs, 3 new suspects, 4 gone, 1 name changed\n"
    assert list(in_words(line).values()) == [1, 12, 3, 4, 1]
    assert not +in_words("tonight: nothing new\n")


@pytest.mark.slow
def test_five_nights_say_what_is_new(tmp_path: Path) -> None:
    settings = tmp_path / "small.toml"
    settings.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in TINY.items()))
    costs, wrong = five_nights(tmp_path, True, 5, ["--settings", str(settings)])
    assert wrong == []
    assert costs[0].counts["new_photos"] == costs[0].photos
    assert sum(cost.counts["new_photos"] for cost in costs) >= costs[-1].photos
    assert any(cost.counts["changed_names"] for cost in costs)
