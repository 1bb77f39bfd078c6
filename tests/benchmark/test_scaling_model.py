import pytest

from eakd_det.benchmark.scaling_model import (
    Bucket,
    Network,
    Reduction,
    checkpoint_interval,
    lost_share,
)

MB = 10**6
FREE = Network(400, latency=0, latency_inside=0, latency_cpu=0)


def test_large_messages_take_the_time_of_the_slowest_link():
    between = 400 / 8 * 1e9 * FREE.used
    assert FREE.all_reduce(100 * MB, 1) == pytest.approx(2 * 7 / 8 * 100 * MB / FREE.inside)
    assert FREE.all_reduce(100 * MB, 8) == pytest.approx(2 * 63 / 64 * 100 * MB / between)


def test_small_messages_take_the_path_of_trees():
    network = Network(400)
    path = 2 * (6 * network.latency + 7 * network.latency_inside)  # 64 nodes
    assert network.all_reduce(8, 64) == pytest.approx(path, rel=1e-3)
    assert network.all_reduce(8, 64) < 2 * 63 * network.latency


def test_one_gpu_reduces_nothing():
    assert Network(100, gpus=1).all_reduce(100 * MB, 1) == 0


def test_early_gradients_are_reduced_during_the_backward_pass():
    seconds = FREE.all_reduce(40 * MB, 2)
    early, late = Bucket(40 * MB, 0.5), Bucket(40 * MB, 0.9)
    assert FREE.step(Reduction([early], 0.9), 1.0, 2) == pytest.approx(1.0)
    assert FREE.step(Reduction([late], 0.9), 1.0, 2) == pytest.approx(1.0 + seconds)
    assert FREE.step(Reduction([early, late], 0.9), 1.0, 2) == pytest.approx(1.0 + seconds)
    assert FREE.step(Reduction([late, late], 0.9), 1.0, 2) == pytest.approx(1.0 + 2 * seconds)
    assert Reduction([early, late], 0.9).overlapped == 0.5


def test_losses_are_gathered_one_message_after_the_other():
    network = Network(400, latency=0, latency_inside=0)
    assert network.step(Reduction([Bucket(0, 0.5)], 0.9), 1.0, 4) == pytest.approx(
        1 + 32 * 50e-6 / 20
    )


def test_the_interval_loses_least():
    checkpoint, restart, failure = 2.0, 60.0, 3600.0
    best = checkpoint_interval(checkpoint, failure)
    assert best == pytest.approx(120)
    lost = [lost_share(best * x, checkpoint, restart, failure) for x in (0.9, 1, 1.1)]
    assert lost[1] == min(lost) == pytest.approx(2 / 120 + (60 + 60) / 3600)
