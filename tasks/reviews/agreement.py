"""How far people agree: the share of pairs of answers that are the same, and Krippendorff's alpha.

With n_uc the answers c to question u, m_u all answers to it (m_u ≥ 2 counts), n_c and n their sums:

    D_o = 1/n Σ_u Σ_{c≠k} n_uc n_uk / (m_u - 1)          what differs
    D_e = 1/(n (n - 1)) Σ_{c≠k} n_c n_k                  what would differ by chance
    α = 1 - D_o / D_e                                    1: all agree, 0: as by chance

Answers are names, so any two that differ do so fully. Over several kinds of questions, whose answers are not
compared with each other, α = 1 - Σ n D_o / Σ n D_e. It says nothing (None) where all gave one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import duckdb

OPINIONS = """
SELECT kind, list(verdict) AS verdicts FROM opinions
WHERE verdict <> 'withdrawn' AND NOT carried
GROUP BY kind, question ORDER BY kind, question
"""
"""What everybody said last of each question; all without a name count as one person."""


@dataclass(frozen=True)
class Agreement:
    """Of one kind of questions: how many had several answers, and how far these agree."""

    questions: int
    answered_twice: int
    observed: float
    expected: float
    same_pairs: int
    pairs: int

    @property
    def percent(self) -> float | None:
        """The share of pairs of answers to one question that are the same, in percent."""
        return 100 * self.same_pairs / self.pairs if self.pairs else None

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha; None where all gave one answer, or nobody a second one."""
        return 1 - self.observed / self.expected if self.expected else None


def agreement_of(units: Iterable[Sequence[str]]) -> Agreement:
    """The agreement on questions of one kind, each with all answers to it."""
    listed = [Counter(unit) for unit in units]
    several = [unit for unit in listed if unit.total() > 1]
    answers: Counter[str] = sum(several, Counter())
    n = answers.total()
    observed = sum(_differing(unit) / (unit.total() - 1) for unit in several)
    pairs = sum(unit.total() * (unit.total() - 1) // 2 for unit in several)
    return Agreement(
        questions=len(listed),
        answered_twice=len(several),
        observed=float(observed),
        expected=_differing(answers) / (n - 1) if n else 0.0,
        same_pairs=pairs - sum(_differing(unit) // 2 for unit in several),
        pairs=pairs,
    )


def pooled(parts: Iterable[Agreement]) -> Agreement:
    """The agreement over several kinds of questions."""
    found = list(parts)
    return Agreement(
        sum(p.questions for p in found),
        sum(p.answered_twice for p in found),
        sum(p.observed for p in found),
        sum(p.expected for p in found),
        sum(p.same_pairs for p in found),
        sum(p.pairs for p in found),
    )


def agreement_by_kind(connection: duckdb.DuckDBPyConnection) -> Mapping[str, Agreement]:
    """Kind of question -> agreement, then `all`."""
    units: dict[str, list[Sequence[str]]] = {}
    for kind, verdicts in connection.execute(OPINIONS).fetchall():
        units.setdefault(kind, []).append(verdicts)
    found = {kind: agreement_of(each) for kind, each in units.items()}
    return found | {"all": pooled(found.values())}


def _differing(counts: Counter[str]) -> int:
    """Ordered pairs of answers that differ: n² - Σ n_c²."""
    return counts.total() ** 2 - sum(count**2 for count in counts.values())
