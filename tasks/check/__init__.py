"""Checks whether a warehouse is what its runs wrote.

There is one module per kind of question; `tasks.check.findings` asks them all.
"""
