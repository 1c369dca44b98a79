"""The page of `pairx review`: its words, its template, its script and its style."""
