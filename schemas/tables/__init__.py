"""Tables of the warehouse: what each row is, its columns, its key and the fingerprint that it lies under."""
