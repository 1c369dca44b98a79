"""Judgement: from what is known of pairs of photos to probabilities.

They are the probability that two photos show one animal, and that a name is wrong.
"""
