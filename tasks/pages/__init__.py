"""Pages for people: values in, HTML out. Nothing here knows a warehouse or a database."""
