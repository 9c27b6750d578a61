"""Coefficients and group effects given phi."""
