"""Catalogues in the formats of the field, each turned into the columns that one validator reads."""
