"""Posteriors of multilevel models of outcomes that are not Gaussian: Laplace's approximation and exact weights."""
