"""The marginal density of phi: elimination, log density, gradient, modes."""
