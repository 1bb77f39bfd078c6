"""eakd_det.analysis.landscape, on losses whose level sets and means are known."""

import math
from itertools import pairwise

import numpy as np
import pytest

from eakd_det.analysis.commands import GRID_SIZES
from eakd_det.analysis.landscape import Landscape, explore
from eakd_det.utils.errors import UserError


def bowl(alpha, beta):
    """1 + 3 alpha^2 + 2 beta^2: its level sets are ellipses."""
    return 1 + 3 * alpha**2 + 2 * beta**2


def grids(loss, sizes=GRID_SIZES, **options):
    """Landscapes of growing size, each made from the one before."""
    found = [None]
    for size in sizes:
        found.append(explore(loss, size, coarser=found[-1], **options))
    return found[1:]


def bowl_variance(half_width):
    """Variance at a uniform place in the square: Var(a x^2 + b y^2) = (a^2 + b^2) (4 / 45) w^4."""
    return (9 + 4) * 4 / 45 * half_width**4


def bowl_area(level, half_width):
    """Share of the ellipse (level - 1 = 3 alpha^2 + 2 beta^2), if it lies inside the square."""
    return math.pi * (level - 1) / math.sqrt(6) / (2 * half_width) ** 2


@pytest.mark.parametrize("half_width", [1.0, 0.5])
def test_variance_of_a_bowl_is_exact(half_width):
    """Simpson's rule errs by the fourth power of the step: 2.4e-3 at 11 points, 9.4e-6 at 41."""
    tolerances = (3e-3, 2e-4, 1e-5, 1e-6)
    found = grids(bowl, half_width=half_width)
    for landscape, tolerance in zip(found, tolerances, strict=True):
        assert landscape.variance == pytest.approx(bowl_variance(half_width), rel=tolerance)


@pytest.mark.parametrize("level", [1.3, 1.6, 2.5])
def test_area_of_a_bowl_converges_to_the_ellipse(level):
    """The spline is as the bowl is, and linear between its points: the square of their step."""
    exact = bowl_area(level, 1.0)
    errors = [abs(x.area_below(level) / exact - 1) for x in grids(bowl)]
    for error, tolerance in zip(errors, (2e-3, 5e-4, 2e-4, 5e-5), strict=True):
        assert error < tolerance


def test_area_of_a_steep_loss_converges():
    """exp(4 r) is below x in a disc; its tip at 0 is none that a spline follows."""
    exact = math.pi * (math.log(4) / 4) ** 2 / 4
    found = grids(lambda alpha, beta: math.exp(4 * math.hypot(alpha, beta)))
    errors = [abs(x.area_below(4.0) / exact - 1) for x in found]
    assert errors[1] < 0.01 and errors[3] < 1e-3


def test_a_smooth_landscape_goes_through_the_points():
    losses = np.random.default_rng(0).random((11, 11))
    smooth = Landscape(np.linspace(-1, 1, 11), losses).smooth()
    np.testing.assert_allclose(smooth.losses[::8, ::8], losses, atol=1e-12)


@pytest.mark.parametrize("level", [-5.0, -1.0, -0.3, 0.0, 0.5, 1.0, 2.0, 5.0])
def test_area_of_a_ramp_is_exact(level):
    """A linear loss is interpolated without an error: 2 alpha + beta on the square."""
    coarse = explore(lambda alpha, beta: 2 * alpha + beta, 11)
    beta = np.linspace(-1, 1, 200_001)
    share = (np.clip((level - beta) / 2, -1, 1) + 1) / 2  # of the alphas
    assert coarse.area_below(level) == pytest.approx(np.trapezoid(share, beta) / 2, abs=1e-6)


def test_area_of_a_flat_loss_is_all_or_nothing():
    flat = Landscape(np.linspace(-1, 1, 11), np.full((11, 11), 2.0))
    assert [flat.area_below(x) for x in (1.9, 2.1)] == [0, 1]
    assert flat.variance < 1e-20


def test_a_mirrored_landscape_has_the_same_figures():
    losses = np.random.default_rng(0).random((11, 11))
    one, *others = (
        Landscape(np.linspace(-1, 1, 11), x)
        for x in (losses, losses[::-1], losses.T, losses[:, ::-1])
    )
    for other in others:
        assert other.area_below(0.4) == pytest.approx(one.area_below(0.4), rel=1e-9)
        assert other.variance == pytest.approx(one.variance, rel=1e-12)


def test_no_point_is_computed_twice_and_grids_agree():
    asked, done = [], []

    def loss(alpha, beta):
        asked.append((alpha, beta))
        return bowl(alpha, beta)

    found = grids(loss, (11, 21, 41), half_width=0.7, done=lambda: done.append(1))
    assert [len(x.coordinates) for x in found] == [11, 21, 41]
    assert len(asked) == len(set(asked)) == len(done) == 41 * 41
    for coarse, fine in pairwise(found):
        assert np.array_equal(coarse.losses, fine.losses[::2, ::2])
        np.testing.assert_allclose(coarse.coordinates, fine.coordinates[::2], atol=1e-15)
    alpha, beta = np.meshgrid(found[2].coordinates, found[2].coordinates)
    np.testing.assert_allclose(found[2].losses, bowl(alpha, beta), rtol=1e-12)
    assert found[2].centre == 1.0 and found[2].coordinates[0] == -0.7
    assert all(b == 2 * a - 1 for a, b in pairwise(GRID_SIZES))


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(UserError, match=r"loss at \(-1, -1\) .* is nan: .*--half-width"):
        explore(lambda alpha, beta: math.nan, 11)
