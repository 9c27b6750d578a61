"""Compiled kernels and their random numbers."""
