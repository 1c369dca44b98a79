"""Relevance at inner layers and in pixels: presets, starts, and two paths through a network.

The fast path records one forward pass per chip and pulls any number of starts through it. `trace` reads a
network into steps, `rules` says how relevance passes each of them, `tape` keeps a forward pass and pulls
starts through it, and `fast` offers that for a network. The general path, `hooks` and `general`, does the
same by zennit's hooks. `explainer` chooses between them.
"""
