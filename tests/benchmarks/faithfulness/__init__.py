"""Every way to explain a pair, measured on real photos and ranked, one table per catalogue and model."""
