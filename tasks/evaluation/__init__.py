"""`pairx evaluate`: what plausibility scores are worth on labelled photos, and the best settings."""
