"""Views over the tables: put into a connection, kept up to date, and stored as snapshots."""
