"""Calibration of a detector's scores: how often detections of a score are correct.

D-ECE of Küppers et al., "Multivariate Confidence Calibration for Object Detection", CVPR Workshops
2020, arXiv 2004.13546, of the score alone.
"""

from collections.abc import Mapping
from typing import Any

from .average_precision import match_detections
from .calibration_figures import draw_reliability
from .objects import DetectorOutputs, Objects
from .reliability import NUM_BINS, Reliability, ece_by_chance, measure_reliability
from .results import AnalysisResult


def detection_calibration_result(
    objects: Objects, detectors: Mapping[str, DetectorOutputs], rows: list[list[str]]
) -> AnalysisResult:
    """Draw the precision of detections over their score, and list the D-ECE of each detector.

    Args:
        objects: all objects.
        detectors: name -> outputs of a detector.
        rows: rows of panels, see `eakd_det.analysis.figures.panel_rows`.
    """
    found = {name: _measure(objects, of.detections) for name, of in detectors.items()}
    panels = {
        name: {f"D-ECE {of['d_ece']:.1f} %, {of['detections']} detections": bins}
        for name, (of, bins) in found.items()
    }
    figure = draw_reliability(
        panels,
        rows,
        title="Precision of the detections at IoU 0.5 over their confidence (95 % intervals)",
        accuracy="precision at IoU 0.5",
        what="detections",
    )
    numbers = {"bins": NUM_BINS, "detectors": {name: of for name, (of, _) in found.items()}}
    table = [[name, of["d_ece"], of["d_ece_by_chance"]] for name, (of, _) in found.items()]
    headers = ["detector", "D-ECE (%)", "D-ECE by chance (%)"]
    return AnalysisResult({"detection_calibration": (figure, numbers)}, headers, table)


def _measure(
    objects: Objects, detections: list[dict[str, Any]]
) -> tuple[dict[str, Any], Reliability]:
    scores, hits = match_detections(objects, detections)
    bins = measure_reliability(scores, hits)
    numbers = {
        "detections": len(scores),
        "d_ece": bins.ece,
        "d_ece_by_chance": ece_by_chance(scores),
        "bins": bins.numbers(),
    }
    return numbers, bins
