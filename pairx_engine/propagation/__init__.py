"""Relevance pulled through a recorded forward pass: one forward per chip, any number of starts.

`trace` reads a network into steps, `rules` and `conserving` say how relevance passes each step, `rule_sets` by which rows a
step's rule is chosen (`published`, `conserving`), `tape` keeps one chip's forward pass and pulls starts through it, `fast`
offers that for a network; `general` is the same by zennit's hooks.
"""
