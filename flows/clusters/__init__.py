"""Where work is done: kinds of Dask clusters behind one setting, and how each is started."""
