from __future__ import annotations

import json

import pytest

from schemas.errors import WarehouseError
from schemas.stored_settings import chosen, stored_settings

DEFAULTS = {"same_species": False, "neighbours": 20}


def test_what_a_run_stored_comes_back_and_what_it_did_not_know_is_the_default() -> None:
    settings = stored_settings("r", json.dumps({"neighbours": 5, "matcher": "sift"}))
    assert settings == {"neighbours": 5, "matcher": "sift"}
    assert chosen("r", settings, DEFAULTS) == {"same_species": False, "neighbours": 5}


@pytest.mark.parametrize("text", [None, "", "{broken", "[1]", "5", '{"a":' * 100_000, "9" * 5000])
def test_text_that_is_no_object_is_damage_of_that_run(text: str | None) -> None:
    with pytest.raises(
        WarehouseError, match="settings of run 'r1', as stored in the table runs, are damaged"
    ):
        stored_settings("r1", text)


@pytest.mark.parametrize("value", ["many", None, [1], True, 1.0, float("inf"), 1 << 31, 10**30])
def test_a_value_of_another_kind_is_damage_of_that_run(value: object) -> None:
    with pytest.raises(WarehouseError, match="neighbours is"):
        chosen("r1", {"neighbours": value}, DEFAULTS)
