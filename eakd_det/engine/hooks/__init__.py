"""Hooks of trainers; `assembly` puts them in order."""
