"""What a result is: Arrow schemas, settings, fingerprints, catalogue formats, failure codes and the SQL
views."""
