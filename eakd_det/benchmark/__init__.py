"""Timings of training steps and of their parts, which `tools/benchmark.py` prints."""
