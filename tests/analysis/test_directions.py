"""eakd_det.analysis.directions."""

import torch
from torch import nn

from eakd_det.analysis.directions import WeightPlane


def small_net(seed=0, *, zero_filter=False):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 4, 5)
    ).eval()
    if zero_filter:
        nn.init.zeros_(net[0].weight[2])
    return net


def direction(net, seed=0):
    """D_1 by name: the weights at alpha = 1 without the network's own."""
    own = dict(net.named_parameters())
    return {name: w - own[name] for name, w in WeightPlane(net, seed).weights(1.0, 0.0).items()}


def test_only_convolutions_and_linear_weights_move():
    plane = WeightPlane(small_net(), seed=0)
    assert set(plane.weights(0.3, 0.1)) == {"0.weight", "3.weight"}


def test_each_filter_has_the_norm_of_the_network_s():
    net = small_net()
    own = dict(net.named_parameters())
    for name, d in direction(net).items():
        for filter_d, filter_w in zip(d, own[name], strict=True):
            torch.testing.assert_close(filter_d.norm(), filter_w.norm())


def test_a_filter_of_zeros_stays():
    d = direction(small_net(zero_filter=True))
    assert not d["0.weight"][2].any() and d["0.weight"][1].any()


def test_the_plane_is_linear_and_its_centre_the_network():
    net = small_net()
    plane, own = WeightPlane(net, seed=1), dict(net.named_parameters())
    corner, first, second = (plane.weights(*x) for x in [(0.5, -2.0), (1.0, 0.0), (0.0, 1.0)])
    for name, w in plane.weights(0.0, 0.0).items():
        assert w.equal(own[name].detach())
        expected = w + 0.5 * (first[name] - w) - 2 * (second[name] - w)
        torch.testing.assert_close(corner[name], expected)
        assert not (first[name] - w).allclose(second[name] - w)


def test_networks_that_are_compared_go_in_the_same_directions():
    """The same numbers, but for the norms of the filters; another seed gives others."""
    one, two = direction(small_net(0)), direction(small_net(1))
    other = direction(small_net(0), seed=5)
    for name, d in one.items():
        cosines = nn.functional.cosine_similarity(d.flatten(1), two[name].flatten(1))
        torch.testing.assert_close(cosines, torch.ones(len(d)))
        assert not d.allclose(other[name])


def test_a_plane_leaves_the_random_numbers_of_others_alone():
    net = small_net()
    before = torch.get_rng_state()
    WeightPlane(net, seed=3)
    assert before.equal(torch.get_rng_state())
