import math

import pytest
import torch
from torchvision.ops import roi_align

from eakd_det.layers.roi_align import sparse_roi_align

SCALE = 0.25  # pixels of the map for one of the image


def _rois(number, images, height, width, dtype, seed=0):
    """(R, 5) ROIs of all sizes around an image of (height, width), some of them partly outside."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height], dtype=dtype)
    centre = (torch.rand(number, 2, generator=generator, dtype=dtype) * 1.4 - 0.2) * size
    half = torch.rand(number, 2, generator=generator, dtype=dtype) ** 2 * 0.6 * size
    index = torch.randint(images, (number, 1), generator=generator).to(dtype)
    return torch.cat([index, centre - half, centre + half], dim=1)


def _odd_rois(height, width, dtype):
    """ROIs at the borders of the map, outside, without extent and inverted."""
    boxes = [
        (0, 0, width, height),
        (-4, -4, width + 4, height + 4),
        (-4, -4, -4, height),  # the samples lie exactly one pixel outside the map
        (width, 0, width + 30, height),
        (-500, -500, -300, -300),
        (-400, -400, 900, 900),
        (20, 20, 20, 20),
        (20, 20, 21, 20),
        (8, 8, 10, 10),
        (40, 30, 12, 9),
        (0, 20, width, 21),
    ]
    return torch.tensor([(i % 2, *box) for i, box in enumerate(boxes)], dtype=dtype)


def _compare(features, rois, output_size=(7, 7), *options, atol, rtol):
    """Values and gradients of both for the same random gradient of the bins."""
    results = []
    for pool in (sparse_roi_align, roi_align):
        features = features.detach().requires_grad_()
        bins = pool(features, rois, output_size, SCALE, *options)
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(bins.shape, generator=generator, dtype=bins.dtype)
        (gradient,) = torch.autograd.grad((bins * weight).sum(), features)
        results.append((bins, gradient))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol)
    return results[0]


# (B, C, H, W), R, dtype, atol, rtol
CASES = [
    ((2, 16, 30, 40), 100, torch.float32, 1e-5, 1e-5),
    ((2, 16, 30, 40), 100, torch.float64, 1e-12, 1e-12),
    ((2, 1, 190, 180), 50, torch.float32, 1e-5, 1e-5),  # more pixels than 16 bits count
    ((3, 1, 7, 5), 20, torch.float32, 1e-5, 1e-5),
    ((2, 3, 1, 1), 9, torch.float64, 1e-12, 1e-12),
    ((1, 5, 9, 1), 1, torch.float32, 1e-5, 1e-5),
    ((2, 4, 6, 6), 0, torch.float32, 0, 0),
    ((0, 4, 6, 6), 0, torch.float32, 0, 0),
]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, -1, 1, 2, 3])
@pytest.mark.parametrize(("shape", "number", "dtype", "atol", "rtol"), CASES)
def test_equals_torchvision(shape, number, dtype, atol, rtol, sampling_ratio, aligned):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
    size = (shape[2] / SCALE, shape[3] / SCALE)
    rois = _rois(number, max(shape[0], 1), *size, dtype)
    if number > 20:
        rois = torch.cat([rois, _odd_rois(*size, dtype)])
    for output_size in [(7, 7), (2, 5)]:
        _compare(features, rois, output_size, sampling_ratio, aligned, atol=atol, rtol=rtol)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("roi", range(11))
def test_each_odd_roi_alone(roi, sampling_ratio, aligned):
    """By itself, so that no other ROI widens the arrays that it is computed in."""
    features = torch.randn(2, 3, 30, 40)
    rois = _odd_rois(120, 160, torch.float32)[roi : roi + 1]
    _compare(features, rois, (7, 7), sampling_ratio, aligned, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
def test_positions_are_rounded_as_torchvision_rounds_them(sampling_ratio):
    """The last sample lies one pixel outside the map: its last bit decides if it counts."""
    features, bins = torch.randn(1, 2, 11, 11), 5
    step = torch.rand(2000, generator=torch.Generator().manual_seed(0)) + 0.5
    first = 11 - (bins - 0.5 / sampling_ratio) * step
    corners = torch.stack([first, first, first + bins * step, first + bins * step], dim=1)
    rois = torch.cat([torch.zeros(2000, 1), corners], dim=1)
    options = (features, rois, (bins, bins), 1.0, sampling_ratio)
    pooled = sparse_roi_align(*options)
    torch.testing.assert_close(pooled, roi_align(*options), atol=1e-5, rtol=1e-5)
    if sampling_ratio == 1:
        counts = pooled[:, 0, -1, -1] != 0
        assert counts.any() and not counts.all()


def test_mean_of_bilinear_samples_by_hand():
    """A bin of 2 x 2 samples, each written out."""
    features = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    roi = torch.tensor([[0, 1.3, 2.1, 3.0, 4.0]], dtype=torch.float64)
    expected = 0
    for y in (2.1 + 1.9 * 0.25, 2.1 + 1.9 * 0.75):
        for x in (1.3 + 1.7 * 0.25, 1.3 + 1.7 * 0.75):
            low_y, low_x = math.floor(y), math.floor(x)
            for row, of_row in ((low_y, 1 - y + low_y), (low_y + 1, y - low_y)):
                for column, of_column in ((low_x, 1 - x + low_x), (low_x + 1, x - low_x)):
                    expected += features[0, 0, row, column] * of_row * of_column / 4
    torch.testing.assert_close(sparse_roi_align(features, roi, (1, 1), 1.0, 2).squeeze(), expected)


def test_gradients():
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = _rois(6, 2, 20, 24, torch.float64).requires_grad_()

    def pool(x):
        return sparse_roi_align(x, rois, (2, 3), SCALE, 0, True)

    assert torch.autograd.gradcheck(pool, features)
    assert torch.autograd.gradgradcheck(pool, features)
    pool(features).sum().backward()
    assert rois.grad is None


def test_channels_last():
    features = torch.randn(2, 8, 30, 40)
    rois = _rois(50, 2, 120, 160, torch.float32)
    expected, _ = _compare(features, rois, (7, 7), 0, True, atol=1e-5, rtol=1e-5)
    features = features.contiguous(memory_format=torch.channels_last)
    bins, gradient = _compare(features, rois, (7, 7), 0, True, atol=1e-5, rtol=1e-5)
    assert torch.equal(bins, expected)
    assert bins.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("is_autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_computed_in_float32(dtype, is_autocast):
    """The float32 result of the rounded features, rounded once; also under autocast."""
    features = torch.randn(2, 8, 30, 40).to(dtype).requires_grad_()
    rois = _rois(50, 2, 120, 160, torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        bins = sparse_roi_align(features, rois, (7, 7), SCALE, 0, True)
    bins.sum().backward()
    wide = features.detach().float().requires_grad_()
    expected = sparse_roi_align(wide, rois, (7, 7), SCALE, 0, True)
    expected.sum().backward()
    assert bins.dtype == features.grad.dtype == dtype
    assert torch.equal(bins, expected.to(dtype))
    assert torch.equal(features.grad, wide.grad.to(dtype))


def test_no_roi_is_joined_to_the_graph():
    features = torch.randn(2, 3, 6, 6, requires_grad=True)
    bins = sparse_roi_align(features, torch.zeros(0, 5), (7, 7), SCALE)
    assert bins.shape == (0, 3, 7, 7)
    bins.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_every_run_gives_the_same_bits():
    features = torch.randn(2, 8, 30, 40, requires_grad=True)
    rois = _rois(300, 2, 120, 160, torch.float32)
    gradients = []
    for _ in range(3):
        bins = sparse_roi_align(features, rois, (7, 7), SCALE, 0, True)
        gradients.append(torch.autograd.grad(bins.square().sum(), features)[0])
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
