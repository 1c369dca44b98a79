"""Local matchers behind one interface: evidence, independent of the model, of one surface."""
