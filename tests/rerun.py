"""CUDA graphs on a CPU."""

from contextlib import contextmanager

import torch


class Rerun:
    """Stands for CudaCapture: captures compute nothing, a replay calls the function once more.

    All other work on graphs is the real one: static inputs and outputs, signatures, warm-up.
    """

    def __init__(self, device=None):
        self.captures = self.replays = 0

    @contextmanager
    def warm_up(self):
        with torch.random.fork_rng(devices=[]):
            yield

    def __call__(self, function):
        self.captures += 1

        def replay():
            self.replays += 1
            function()

        return replay

    @contextmanager
    def in_turn(self):
        yield
