"""What a run does: its stages and their store, and what is asked, checked and shown afterwards."""

from tasks import offers as offers  # wherever settings are read, what they may name is known
