"""Local matchers behind one seam: evidence, independent of the model, that two photos show one surface."""
