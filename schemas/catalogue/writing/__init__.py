"""Writes a catalogue back with other names, in the format that it was read from, one module per format.

The text is edited in place: what no correction touches stays as it is, byte for byte.
"""
