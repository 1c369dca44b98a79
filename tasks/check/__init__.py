"""Is a warehouse what its runs wrote?

One module per kind of question; `tasks.check.findings` asks them all.
"""
