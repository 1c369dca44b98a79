"""The analyst's SQL: a connection that only reads, its prompt, and answers as text."""
