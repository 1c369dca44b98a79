"""Numbers with one meaning in the program and the views: in SQL a macro without arguments.

Those of the ranking are round numbers, chosen while looking at one drawn catalogue.
"""

from __future__ import annotations

NEAR_IDENTICAL_BITS = 4
"""Most differing bits, of 64, between perceptual hashes of one picture, resaved or resized."""
FEW_COPIES = 3
"""Pairs of one photo that are verified: its nearest, and those with most local matches."""
MANY_INLIERS = 20
"""Local matches under one homography from which a pair may be one picture.

That is two to three times what chance brings.
"""
CERTAIN_COPY = 0.99
"""Agreement from which two pictures are a copy and not two frames of one burst.

Copies saved anew as other kinds reach .993 and more; still frames of video mostly reach .97 to .99.
"""
SUSPICIOUS = 0.001
"""Score below which a suspicion is left out; for names and photos it is the probability."""
RISEN = 0.05
"""By how much a suspicion's probability must rise from one run to another to be news by itself."""
LISTED = 0.05
"""Probability of a wrong name from which a photo is listed in any case.

Other photos are listed if they are in the first tenth and another name has more evidence than their own.
"""
CONTRADICTING = 0.9
"""How sure a pair must be, either way, for a new photo to speak against a person's answer."""
PAIRS_PER_REFERENCE = 20
"""Pairs to choose from, at least, for each reference pair; those with the lowest ids are chosen.

The choice spreads the reference pairs over many photos.
"""

THRESHOLDS: dict[str, int | float] = {
    "near_identical_bits": NEAR_IDENTICAL_BITS,
    "few_copies": FEW_COPIES,
    "many_inliers": MANY_INLIERS,
    "certain_copy": CERTAIN_COPY,
    "listed": LISTED,
    "suspicious": SUSPICIOUS,
    "risen": RISEN,
    "contradicting": CONTRADICTING,
    "pairs_per_reference": PAIRS_PER_REFERENCE,
}
"""Macro -> number."""
