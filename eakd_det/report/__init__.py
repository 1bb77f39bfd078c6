"""HTML report of runs, one file with their figures, curves, pictures and commands."""
