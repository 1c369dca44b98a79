"""Relevance at inner layers and in pixels: presets, starts, and two ways to propagate one through a network.

The fast path records one forward per chip and pulls any number of starts through it: `trace` reads a network
into steps, `rules` says how relevance passes each of them, `tape` keeps a forward pass and pulls starts
through it, `fast` offers that for a network. The general path, `hooks` and `general`, is the same by zennit's
hooks. `explainer` chooses between them.
"""
