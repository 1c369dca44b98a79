"""One night: what a run does with a catalogue, and with whose hands."""
