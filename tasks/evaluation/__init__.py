"""`pairx evaluate`: what the plausibility scores are worth on a labelled catalogue, and which settings serve
it best."""
