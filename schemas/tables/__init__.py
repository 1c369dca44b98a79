"""Tables of the warehouse: what each row is, its columns, its key and its fingerprint."""
