"""Where work is done: kinds of Dask clusters behind one setting, and a look at workers before they get any."""
