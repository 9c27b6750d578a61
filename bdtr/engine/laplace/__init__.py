"""Posteriors of multilevel models of other outcomes than Gaussian: Laplace's density, exact weights."""
