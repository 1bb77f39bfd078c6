"""A page about runs: their figures, curves, pictures and commands in one HTML file."""
