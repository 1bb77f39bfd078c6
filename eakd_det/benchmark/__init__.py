"""Fair timings of training steps and of their parts; `tools/benchmark.py` prints them."""
