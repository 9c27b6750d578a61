"""Exact posteriors of multilevel models from cross-products: arrays, and nothing else of bdtr."""
