"""Grids of configs and seeds, trained one after the other, and their tables."""
