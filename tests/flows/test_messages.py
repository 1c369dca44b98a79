from __future__ import annotations

import errno
from pathlib import Path

import duckdb
import pytest

from flows import messages
from flows.messages import message_of
from schemas.errors import NoWarehouse, WarehouseError


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (NoWarehouse("w"), "there is no warehouse at w", 2),
        (WarehouseError("x is damaged", "delete it"), "x is damaged\n  cure: delete it", 1),
        (OSError(errno.ENOSPC, "No space left on device", "/w/x"), "No space left on device: '/w/x'\n  cure: see that", 1),
        (PermissionError(errno.EACCES, "Permission denied", "/w"), "Permission denied: '/w'\n  cure: see that", 1),
        (MemoryError(), "there is not enough memory", 1),
        (duckdb.IOException("IO Error: gone"), "IO Error: gone\n  cure: `pairx check`", 1),
        (duckdb.Error("Traceback (most recent call last):\n  File x\nConnectionError: gone"), "ConnectionError: gone\n  cure", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_errors_that_can_be_mended_have_a_cure_and_no_traceback(
    error: Exception, said: str, code: int
) -> None:
    text, exit_code = message_of(error)
    assert said in text
    assert exit_code == code
    assert "Traceback" not in text


def test_the_traceback_of_a_fault_goes_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages.tempfile, "tempdir", str(tmp_path))
    try:
        raise KeyError("nose")
    except KeyError as error:
        text, code = message_of(error)
    (kept,) = tmp_path.iterdir()
    assert code == 1
    assert text.startswith("KeyError: 'nose'")
    assert str(kept) in text
    assert "Traceback" not in text
    assert 'raise KeyError("nose")' in kept.read_text()
