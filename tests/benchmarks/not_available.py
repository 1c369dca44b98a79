"""What a benchmark or a check raises where this checkout or machine lacks what is asked for.

Imports nothing heavy.
"""


class NotAvailable(Exception):
    """The engine of this checkout, or this machine, lacks what is asked for."""
