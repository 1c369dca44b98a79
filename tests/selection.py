"""Which tests may see a GPU: those of a run that selects gpu-marked tests and no others."""

from __future__ import annotations


def means_the_gpu(expression: str) -> bool:
    """Whether pytest's ``-m EXPRESSION`` selects tests marked gpu, and none without that mark."""
    gpu, other = (
        any(_selects(expression, {"gpu": marked, "slow": slow}) for slow in (False, True))
        for marked in (True, False)
    )
    return gpu and not other


def _selects(expression: str, marks: dict[str, bool]) -> bool:
    if not expression:
        return True
    try:
        return bool(eval(expression, {"__builtins__": {}}, marks))
    except (SyntaxError, NameError, TypeError):
        # Marks that this project does not have; pytest itself says what is wrong.
        return False
