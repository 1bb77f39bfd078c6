"""Reports on the outputs of detectors for a dataset's objects: figures, numbers and a table."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from eakd_det.utils.errors import UserError

from .average_precision import NUM_RESAMPLES, PartAP, ap_of_parts, interval
from .detection_calibration import detection_calibration_result
from .detection_figures import draw_ap_segments
from .gallery import draw_gallery, top_classes
from .objects import DetectorOutputs, Objects
from .results import AnalysisResult, segments_result, separation_result
from .samples import Samples
from .weights import weights_result

NUM_AP_SEGMENTS = 5  # each needs objects of every class
NUM_PICTURES = 18


def detector_results(
    objects: Objects,
    teacher: DetectorOutputs,
    students: Mapping[str, DetectorOutputs],
    names: list[str],
    rows: list[list[str]],
    *,
    temperature: float,
    num_points: int,
    seed: int,
) -> Iterator[AnalysisResult]:
    """Report AP by entropy, segments, weights, D-ECE, t-SNE and the objects of the highest weight.

    Args:
        names: class names.
        rows: rows of panels, see `eakd_det.analysis.figures.panel_rows`.
        temperature: softmax temperature of the entropies.
        num_points: number of ROIs in t-SNE, a random sample with a fixed seed.
        seed: seed of t-SNE.

    Yields:
        Two results; the second has t-SNE, which takes longest, and the table of both.

    Raises:
        UserError: there are too few objects.
    """
    ap = ap_result(objects, teacher, students, temperature=temperature)
    rois = {name: outputs.samples for name, outputs in students.items()}
    segments = segments_result(teacher.samples, rois, temperature=temperature, what="objects")
    weights = weights_result(
        teacher.samples, rois, rows, temperature=temperature, what="objects' ROIs"
    )
    gallery = _gallery(objects, teacher.samples, rois, names, temperature=temperature)
    calibration = detection_calibration_result(objects, {"teacher": teacher, **students}, rows)
    figures = ap.figures | segments.figures | weights.figures | calibration.figures | gallery
    table = [[*row, *rest] for row, (_, *rest) in zip(ap.rows, calibration.rows, strict=True)]
    headers = [*ap.headers, *calibration.headers[1:]]
    yield AnalysisResult(figures, headers, table)
    some = _random_choice({**rois, "teacher": teacher.samples}, num_points)
    options = {"temperature": temperature, "names": names, "seed": seed, "what": "objects' ROIs"}
    separation = separation_result(some, some["teacher"], rows, **options)
    others = {name: of for name, *of in separation.rows}
    table = [[name, *of, *others[name]] for name, *of in table]
    yield AnalysisResult(separation.figures, [*headers, *separation.headers[1:]], table)


def ap_result(
    objects: Objects,
    teacher: DetectorOutputs,
    students: Mapping[str, DetectorOutputs],
    *,
    temperature: float,
) -> AnalysisResult:
    """Report AP over fifths of the objects, by the teacher's entropy of their ROIs.

    Raises:
        UserError: there are too few objects.
    """
    if len(objects) < NUM_AP_SEGMENTS:
        raise UserError(f"{len(objects)} objects are too few for {NUM_AP_SEGMENTS} parts.")
    entropy = teacher.samples.entropy(temperature)
    order = entropy.argsort(stable=True)
    parts = order.tensor_split(NUM_AP_SEGMENTS)
    known = {"teacher": teacher, **students}
    aps = {
        name: ap_of_parts(objects, of.detections, [order, *parts])
        for name, of in tqdm(known.items(), desc="AP")
    }
    numbers = {
        "temperature": temperature,
        "parts": [{"number": len(p), "entropy": entropy[p].mean().item()} for p in parts],
        "resamples": NUM_RESAMPLES,
        "all": {name: _ap_numbers(of[0]) for name, of in aps.items()},
        "by_teacher_entropy": {name: [_ap_numbers(x) for x in of[1:]] for name, of in aps.items()},
        "teacher_minus_student": {
            name: [_gap_numbers(*pair) for pair in zip(aps["teacher"], aps[name], strict=True)][1:]
            for name in students
        },
    }
    figure = draw_ap_segments(
        numbers["by_teacher_entropy"],
        numbers["teacher_minus_student"],
        temperature=temperature,
    )
    rows = [
        [name, *(_with_interval(_ap_numbers(part)) for part in (of[0], of[1], of[-1]))]
        for name, of in aps.items()
    ]
    headers = ["detector", "AP", "AP, lowest entropy", "AP, highest entropy"]
    return AnalysisResult({"ap_segments": (figure, numbers)}, headers, rows)


def _ap_numbers(part: PartAP) -> dict[str, Any]:
    return {**part.values, "interval": interval(part.values["AP"], part.resampled)}


def _gap_numbers(teacher: PartAP, student: PartAP) -> dict[str, Any]:
    """Difference in AP on the same images, with its interval from the same bootstrap samples."""
    gap = teacher.values["AP"] - student.values["AP"]
    return {"AP": gap, "interval": interval(gap, teacher.resampled - student.resampled)}


def _with_interval(numbers: dict[str, Any]) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(numbers["AP"], *numbers["interval"])


def _random_choice(samples: Mapping[str, Samples], number: int) -> dict[str, Samples]:
    """Choose the same samples, at most so many, of each detector."""
    order = torch.randperm(
        len(samples["teacher"].labels), generator=torch.Generator().manual_seed(0)
    )
    chosen = order[:number].sort().values
    return {
        name: Samples(of.labels[chosen], of.logits[chosen], of.features[chosen])
        for name, of in samples.items()
    }


def _gallery(
    objects: Objects,
    teacher: Samples,
    students: Mapping[str, Samples],
    names: list[str],
    *,
    temperature: float,
) -> dict[str, tuple[Figure, dict[str, Any]]]:
    """Draw the objects of the highest w_EA for each student; return figures and numbers by name."""
    figures = {}
    for place, (name, student) in enumerate(students.items(), 1):
        weight = student.weight(teacher, temperature)
        chosen = weight.topk(min(NUM_PICTURES, len(weight))).indices.tolist()
        title = (
            f"The objects of the highest $w_{{EA}}$ of {name} (temperature {temperature:g})\n"
            "above: class and weight; below: predictions of the teacher (T) and the student (S)"
        )
        figure = draw_gallery(objects, teacher, student, weight, chosen, names, title)
        shown = [
            {
                "image_id": objects.scenes[objects.places[i]]["image_id"],
                "box": objects.boxes[i].tolist(),
                "class": names[objects.labels[i]],
                "w_ea": weight[i].item(),
                "teacher": top_classes(teacher.logits[i], names),
                "student": top_classes(student.logits[i], names),
            }
            for i in chosen
        ]
        file_name = "gallery" if len(students) == 1 else f"gallery_{place}"
        figures[file_name] = figure, {"student": name, "temperature": temperature, "objects": shown}
    return figures
