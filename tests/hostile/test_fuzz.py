"""A short run of the fuzzer; ``python -m tests.hostile.fuzz --minutes 60`` is the long one."""

from __future__ import annotations

import pytest

from tests.hostile import fuzz


@pytest.mark.parametrize("name", fuzz.PROPERTIES)
def test_decoders_give_values_or_refusals_in_words(name: str) -> None:
    fuzz.check(name, 30)
