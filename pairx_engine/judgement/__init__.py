"""Judgement of a catalogue's names from what its pairs of photos say. Pure NumPy over plain arrays.

Nothing is re-exported: functions are imported from the module that holds them.
"""
