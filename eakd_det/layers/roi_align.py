"""ROIAlign on the CPU as the product of a sparse matrix and the feature map.

On a CPU torchvision computes the gradient of ROIAlign in one thread, value by value. A bin of a ROI
is a weighted sum of pixels, with the same weights in every channel. All bins together are therefore
a sparse matrix of weights times the feature map, and the gradient is the transposed matrix times
the gradient of the bins: two products over whole rows of channels, in all threads. The indices are
computed with numpy in one thread, because torch would synchronise its threads after each of two
dozen short operations, which takes milliseconds when other programs run.

B counts images, C channels, R ROIs of (P, Q) bins, E entries of the matrix; (H, W) is the size of
the feature map.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def sparse_roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Compute torchvision.ops.roi_align of tensors on the CPU.

    Args:
        features: (B, C, H, W); half precisions are computed in float32.
        rois: (R, 5) floats: index of the image, then x1, y1, x2, y2. They get no gradient.
        output_size: (P, Q).
        spatial_scale: pixels of the map per unit of the boxes.
        sampling_ratio: samples of a bin in each direction; 0 or less is ceil(size of the bin).
        aligned: shift the boxes by half a pixel, and allow them to be smaller than a pixel.

    Returns:
        (R, C, P, Q) in the dtype of the features and with channels_last strides. Without a ROI it
        is empty and joined to the graph.
    """
    (_, channels, height, width), (rows, columns) = features.shape, output_size
    pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
    if pixels.dtype != torch.float64:
        pixels = pixels.float()
    with torch.no_grad():
        boxes = rois[:, 1:].to(pixels.dtype) * spatial_scale - (0.5 if aligned else 0.0)
        start, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]  # (R, 2): x, y
        if not aligned:
            size = size.clamp(min=1)
        y = _taps(start[:, 1], size[:, 1], rows, sampling_ratio, height)
        x = _taps(start[:, 0], size[:, 0], columns, sampling_ratio, width)
        matrix = _matrix(rois[:, 0].int().numpy(), y, x, (height, width))
    bins = _Product.apply(pixels, *map(torch.from_numpy, matrix))
    bins = bins.view(len(rois), rows, columns, channels).permute(0, 3, 1, 2)
    return bins.to(features.dtype)


class _Product(torch.autograd.Function):
    """Product of a sparse and a dense matrix, with the gradient in the dense one.

    The built-in gradient of embedding_bag is the same, but calls BLAS for each entry and takes two
    to four times as long.
    """

    @staticmethod
    def forward(ctx, dense: Tensor, indices: Tensor, values: Tensor, ends: Tensor) -> Tensor:
        """Multiply the matrix, given as `_matrix` returns it, by `dense`, (its columns, C)."""
        ctx.save_for_backward(indices, values, ends)
        ctx.num_columns = len(dense)
        return _multiply(dense, indices, values, ends)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        indices, values, ends = (tensor.numpy() for tensor in ctx.saved_tensors)
        rows = np.repeat(np.arange(len(ends) - 1, dtype=np.int32), np.diff(ends))
        order = _order(indices)
        counts = np.bincount(indices, minlength=ctx.num_columns)
        transposed = rows[order], values[order], _ends(counts)
        return _multiply(gradient, *map(torch.from_numpy, transposed)), None, None, None


def _multiply(dense: Tensor, indices: Tensor, values: Tensor, ends: Tensor) -> Tensor:
    return F.embedding_bag(
        indices, dense, ends, mode="sum", per_sample_weights=values, include_last_offset=True
    )


class _Taps(NamedTuple):
    """Pixels of each bin along one axis, concatenated bin after bin into lists of T."""

    pixels: np.ndarray  # (T,) int32
    weights: np.ndarray  # (T,)
    counts: np.ndarray  # (R, bins) int32: number of pixels of each bin


def _taps(start: Tensor, size: Tensor, bins: int, sampling_ratio: int, length: int) -> _Taps:
    """Compute the weights of ROIAlign along one axis; a bin's are the products of both axes'.

    Bilinear interpolation, the mean over a grid of samples, and the rule that a sample more than
    one pixel outside the map counts as 0 are such products. Positions are computed in the order of
    torchvision's code, since other rounding can move a sample across that border.

    Args:
        start, size: (R,) first edge and extent of the ROIs, in pixels of the map.
        bins: number of bins along this axis.
        sampling_ratio: as in `sparse_roi_align`.
        length: pixels of the map along this axis.
    """
    step = (size / bins)[:, None, None]
    samples = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil()
    number = torch.arange(int(samples.max().clamp(min=1)) if len(samples) else 1, dtype=size.dtype)
    is_sample = number < samples  # a ROI without extent has none
    samples = samples.clamp(min=1)
    number = torch.minimum(number, samples - 1)  # surplus samples repeat the last with weight 0
    bin_start = start[:, None, None] + torch.arange(bins, dtype=size.dtype)[:, None] * step
    position = bin_start + (number + 0.5) * step / samples  # (R, bins, samples)
    share = (is_sample & (position >= -1) & (position <= length)) / samples
    position = position.clamp(0, length - 1)
    low = position.floor()
    fraction = position - low
    first = low.amin(dim=2, keepdim=True)
    place = (low - first).long()  # in the window of pixels that contains a bin's samples
    window = int(place.max()) + 2 if len(place) else 2
    weights = size.new_zeros(len(size), bins, window)
    weights.scatter_add_(2, place, (1 - fraction) * share)
    weights.scatter_add_(2, place + 1, fraction * share)
    pixels = first.int() + torch.arange(window, dtype=torch.int32)
    is_tap = weights != 0
    taps = pixels[is_tap], weights[is_tap], is_tap.sum(dim=2, dtype=torch.int32)
    return _Taps(*(values.numpy() for values in taps))


def _matrix(
    images: np.ndarray, y: _Taps, x: _Taps, map_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Build the (R * P * Q, B * H * W) matrix of the bins' weights, row by row.

    Args:
        images: (R,) int32 index of each ROI's image.
        y, x: taps of the (R, P) and (R, Q) bins.
        map_size: (H, W).

    Returns:
        (E,) int32 column and (E,) value of each entry, and (R * P * Q + 1,) int32 start of each
        row's entries, with the end of the last row.
    """
    shape = (*y.counts.shape, x.counts.shape[1])

    def per_bin(values: np.ndarray, axis: int) -> np.ndarray:
        return np.broadcast_to(np.expand_dims(values, axis), shape).ravel()

    y_start, x_start = (_ends(taps.counts)[:-1].reshape(taps.counts.shape) for taps in (y, x))
    # A line is one row of pixels within a bin, an entry is one pixel of a line.
    bin_of_line, y_tap, line_ends = _concatenate(per_bin(y_start, 2), per_bin(y.counts, 2))
    line_of_entry, x_tap, entry_ends = _concatenate(
        per_bin(x_start, 1)[bin_of_line], per_bin(x.counts, 1)[bin_of_line]
    )
    height, width = map_size
    image = np.broadcast_to(images[:, None], shape[:2])
    row = per_bin(image * height, 2)[bin_of_line] + y.pixels[y_tap]
    columns = (row * width)[line_of_entry] + x.pixels[x_tap]
    values = y.weights[y_tap][line_of_entry] * x.weights[x_tap]
    return columns, values, entry_ends[line_ends]


def _concatenate(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concatenate the ranges start[i], ..., start[i] + count[i] - 1; all arrays are int32.

    Returns:
        i of each element, the element, and the start of each range with the end of the last.
    """
    ends = _ends(count)
    owner = np.repeat(np.arange(len(count), dtype=np.int32), count)
    shift = (start - ends[:-1])[owner]
    return owner, shift + np.arange(len(owner), dtype=np.int32), ends


def _ends(counts: np.ndarray) -> np.ndarray:
    """Start of each of several consecutive parts, and the end of the last; int32."""
    return np.concatenate([np.zeros(1, np.int32), counts.ravel().cumsum(dtype=np.int32)])


def _order(keys: np.ndarray) -> np.ndarray:
    """Indices that sort non-negative int32 keys, by 16 bits at a time to take linear time."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    high = (keys >> 16).astype(np.uint16)
    return order[np.argsort(high[order], kind="stable")] if high.any() else order
