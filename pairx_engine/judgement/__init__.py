"""Judgement: from what is known of pairs of photos to the probability that two show one animal, and that a
name is wrong."""
