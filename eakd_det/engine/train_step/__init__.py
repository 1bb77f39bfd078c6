"""One training step and the checks of its losses."""
