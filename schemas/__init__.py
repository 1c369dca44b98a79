"""What a result is: tables, settings, fingerprints, catalogue formats, failure codes, SQL views."""
