"""Numbers that mean one thing to the program and to the views: in SQL each is a macro without arguments.

Those of the ranking are round numbers, chosen while looking at one drawn catalogue.
"""

from __future__ import annotations

NEAR_IDENTICAL_BITS = 4
"""Differing bits, of 64, up to which two perceptual hashes are of one picture, saved again or in another
size."""
FEW_COPIES = 3
"""Pairs of one photo that are looked at closely: its nearest, and those with most local matches."""
MANY_INLIERS = 20
"""Local matches that one homography explains, from which a pair may be one picture: two to three times what
chance brings."""
CERTAIN_COPY = 0.99
"""Agreement from which two pictures are a copy rather than two frames of one burst: copies saved anew as
other kinds reach
.993 and more, still frames of video .97 to .99 for the most part."""
SUSPICIOUS = 0.001
"""Score, for names and photos the probability, below which a suspicion is left out."""
LISTED = 0.05
"""Probability of a wrong name from which a photo is listed in any case.

Others are listed where another name speaks louder than
their own and they are in the first tenth."""
PAIRS_PER_REFERENCE = 20
"""Pairs, at least, that reference pairs are the lowest of, for each of them: it spreads them over many
photos."""

THRESHOLDS: dict[str, int | float] = {
    "near_identical_bits": NEAR_IDENTICAL_BITS,
    "few_copies": FEW_COPIES,
    "many_inliers": MANY_INLIERS,
    "certain_copy": CERTAIN_COPY,
    "listed": LISTED,
    "suspicious": SUSPICIOUS,
    "pairs_per_reference": PAIRS_PER_REFERENCE,
}
"""Macro -> number."""
