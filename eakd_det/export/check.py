"""Comparison of an exported detector with the model, and their latencies.

Detections of an image are a tuple of N boxes (N, 4), classes (N,), scores (N,) and, of a model with
masks, the probabilities (N, 28, 28) within the boxes.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from eakd_det.utils.errors import UserError, format_problems

BOXES, SCORES, MASKS = 1e-2, 1e-3, 1e-2  # largest differences: pixels, scores, probabilities
FAR = 100.0  # in units of these; detections that differ by more are no pair
WARMUP, RUNS = 3, 10  # TorchScript optimizes during the first calls

Detections = tuple[Tensor, ...]
Detector = Callable[[Tensor], Detections]


class Limits(NamedTuple):
    """Limits of a detector's output.

    Attributes:
        score: least score of a detection.
        number: largest number of detections of an image.
    """

    score: float
    number: int


def check_detections(
    model: Detector, exported: Detector, images: Mapping[str, Tensor], limits: Limits
) -> tuple[int, dict[str, float]]:
    """Compare the detections on images; the order of detections does not matter.

    One that lacks a counterpart is accepted if its score is within SCORES of the limit from which
    the detector gives detections on that image, since rounding decides about it.

    Args:
        images: name -> (3, H, W) uint8.

    Returns:
        Number of detections compared, and their largest differences by name.

    Raises:
        UserError: the detections differ; the message lists how.
    """
    number, largest, problems = 0, {"boxes": 0.0, "scores": 0.0}, []
    for name, image in images.items():
        with torch.no_grad():
            expected, found = model(image), exported(image)
        pairs = _pair(expected, found)
        number += len(pairs)
        for key, errors in _errors(expected, found, pairs).items():
            largest[key] = max(largest.get(key, 0.0), errors.max().item() if len(errors) else 0.0)
        problems += [f"{name}: {x}" for x in _problems(expected, found, pairs, limits)]
    if problems:
        raise UserError(
            f"The exported model does not give the detections of the student:\n"
            f"{format_problems(problems)}"
        )
    return number, largest


def _pair(expected: Detections, found: Detections) -> Tensor:
    """Assign detections to each other so that they differ least; return (pairs, 2) indices."""
    (boxes, classes, scores), (other_boxes, other_classes, other_scores) = expected[:3], found[:3]
    cost = (boxes[:, None] - other_boxes).abs().amax(dim=2) / BOXES
    cost = cost.maximum((scores[:, None] - other_scores).abs() / SCORES)
    cost = cost.nan_to_num(FAR).clamp(max=FAR)
    cost[classes[:, None] != other_classes] = FAR
    rows, columns = map(torch.as_tensor, linear_sum_assignment(cost.numpy()))
    pairs = torch.stack([rows, columns], dim=1)
    return pairs[cost[rows, columns] < FAR]


def _errors(expected: Detections, found: Detections, pairs: Tensor) -> dict[str, Tensor]:
    """Return the differences (pairs,) of boxes, scores and masks."""
    rows, columns = pairs.unbind(1)
    gaps = [(a[rows] - b[columns]).abs() for a, b in zip(expected, found, strict=True)]
    errors = {"boxes": gaps[0].amax(dim=1), "scores": gaps[2]}
    return errors | ({"masks": gaps[3].amax(dim=(1, 2))} if len(gaps) > 3 else {})


def _problems(expected: Detections, found: Detections, pairs: Tensor, limits: Limits) -> list[str]:
    errors = _errors(expected, found, pairs)
    problems = []
    for i, (row, _) in enumerate(pairs.tolist()):
        wrong = [
            f"{text} by {errors[key][i]:.3g}{unit}"
            for key, text, limit, unit in (
                ("boxes", "the box differs", BOXES, " pixel"),
                ("scores", "the score", SCORES, ""),
                ("masks", "the mask", MASKS, ""),
            )
            if key in errors and not errors[key][i] <= limit
        ]
        if wrong:
            problems.append(f"{_describe(expected, row)}: {', '.join(wrong)}")
    sides = ("the student", expected, pairs[:, 0]), ("the exported model", found, pairs[:, 1])
    for owner, detections, paired in sides:
        problems += [
            f"{_describe(detections, i)}: {owner} alone has it"
            for i in sorted({*range(len(detections[0]))} - {*paired.tolist()})
            if not detections[2][i] <= _cutoff(limits, expected, found) + SCORES  # or NaN
        ]
    return problems


def _cutoff(limits: Limits, *sides: Detections) -> float:
    """Return the score from which the detections of an image are given."""
    full = [scores.min().item() for _, _, scores, *_ in sides if len(scores) == limits.number]
    return max([limits.score, *full])


def _describe(detections: Detections, i: int) -> str:
    boxes, classes, scores = detections[:3]
    box = ", ".join(f"{x:.2f}" for x in boxes[i].tolist())
    return f"class {classes[i].item()}, score {scores[i].item():.4f}, box [{box}]"


def measure(detectors: Mapping[str, Detector], image: Tensor) -> dict[str, float]:
    """Return the median seconds of a call of each detector, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for i in range(WARMUP + RUNS):
        for name, detector in detectors.items():
            start = time.perf_counter()
            with torch.no_grad():
                detector(image)
            if i >= WARMUP:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
