"""How a catalogue's file is packed and written: archives, encodings, dialects of CSV, workbooks, Parquet."""
