"""Ways to draw phi."""
