"""Model of a training on several nodes: gradients' all-reduce, checkpoints and failures.

An all-reduce of S bytes over n GPUs moves 2 (n - 1) / n S bytes over the slowest link in a ring
(Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 2009), and 2 S in a pair of binary trees,
which send fewer messages one after the other (Sanders et al., Parallel Computing 35, 2009).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from eakd_det.distillers.entropy_statistics import LOG_PERIOD


class Bucket(NamedTuple):
    """Gradients that DistributedDataParallel reduces together.

    Attributes:
        bytes: of the gradients.
        ready: share of a step's time after which they are complete.
    """

    bytes: int
    ready: float


class Reduction(NamedTuple):
    """Buckets of a step, in their order, and the share of its time at which the backward ends."""

    buckets: Sequence[Bucket]
    end: float

    @property
    def bytes(self) -> int:
        return sum(bucket.bytes for bucket in self.buckets)

    @property
    def overlapped(self) -> float:
        """Share of the bytes whose all-reduce can start before the last gradient is complete."""
        return 1 - self.buckets[-1].bytes / self.bytes


@dataclass(frozen=True)
class Network:
    """Links of a cluster; the defaults are assumptions for nodes of 8 H100.

    Attributes:
        gbit: Gb/s of a node to others, in each direction, all its adapters together.
        gpus: of a node, a process each.
        inside: B/s of a GPU to others of its node.
        used: share of `gbit` that an all-reduce reaches.
        latency, latency_inside: seconds of a message to another node, and within a node.
        latency_cpu: seconds of a message between processes on the CPU, over TCP.
    """

    gbit: float
    gpus: int = 8
    inside: float = 300e9
    used: float = 0.8
    latency: float = 15e-6
    latency_inside: float = 3e-6
    latency_cpu: float = 50e-6

    def all_reduce(self, size: int, nodes: int) -> float:
        """Return the seconds of an all-reduce of `size` bytes, by the faster of ring and trees."""
        n = nodes * self.gpus
        between = self.gbit / 8 * 1e9 * self.used
        speed = self.inside if nodes == 1 else min(self.inside, between)
        hops = 2 * (nodes - 1) * self.latency + 2 * (n - nodes) * self.latency_inside
        ring = 2 * (n - 1) / n * size / speed + hops
        depth = math.ceil(math.log2(nodes)) * self.latency
        trees = 2 * size / speed + 2 * (depth + (self.gpus - 1) * self.latency_inside)
        return min(ring, trees)

    def step(self, reduction: Reduction, seconds: float, nodes: int) -> float:
        """Return the seconds of a step with what its processes exchange.

        The buckets are reduced one after the other, each when it is complete; what follows the
        backward pass waits for the last. The losses of LOG_PERIOD steps are gathered on the CPU, in
        as many messages one after the other as there are processes.

        Args:
            seconds: of the step of one process, with as many images.
        """
        reduced = 0.0
        for bucket in reduction.buckets:
            start = max(reduced, bucket.ready * seconds)
            reduced = start + self.all_reduce(bucket.bytes, nodes)
        end = reduction.end * seconds
        losses = nodes * self.gpus * self.latency_cpu / LOG_PERIOD
        return max(reduced, end) + seconds - end + losses


def checkpoint_interval(checkpoint: float, failure: float) -> float:
    """Return the seconds between checkpoints that lose least: sqrt(2 C M).

    Young, Comm. ACM 17, 1974; Daly, Future Gener. Comput. Syst. 22, 2006.

    Args:
        checkpoint: C, seconds that the training waits for a checkpoint.
        failure: M, mean seconds between failures of the whole run.
    """
    return math.sqrt(2 * checkpoint * failure)


def lost_share(interval: float, checkpoint: float, restart: float, failure: float) -> float:
    """Return the share of time that is lost: checkpoints, steps to repeat, and restarts.

    Args:
        interval: seconds between checkpoints.
        restart: seconds from a failure to the next step.
        checkpoint, failure: as of `checkpoint_interval`.
    """
    return checkpoint / interval + (interval / 2 + restart) / failure
