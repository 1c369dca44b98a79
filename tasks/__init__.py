"""What a run does: its stages and their store, what is left of it, and what is asked, checked and shown of it
afterwards."""

from tasks import offers as offers  # wherever settings are read, what they may name is known
