"""Questions and verdicts in files of other programs, one module per format."""
