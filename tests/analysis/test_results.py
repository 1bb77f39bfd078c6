"""eakd_det.analysis.results."""

import json

import pytest
import torch

from eakd_det.analysis.landscape import explore
from eakd_det.analysis.results import landscapes_result, segments_result, separation_result
from eakd_det.analysis.samples import Samples
from eakd_det.analysis.segments import entropy_segments
from eakd_det.analysis.separation import separate
from eakd_det.utils.errors import UserError


def samples(seed, number=40):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 4
    logits = torch.randn(number, 4, generator=generator)
    return Samples(labels, logits, torch.randn(number, 3, generator=generator))


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_segments_by_either_entropy(tmp_path):
    teacher, student = samples(0), samples(1)
    report = segments_result(teacher, {"KD": student}, temperature=2.0)
    assert len(report.write(str(tmp_path))) == 3
    numbers = read(tmp_path, "entropy_segments")
    for order, entropies in (("teacher", teacher), ("student", student)):
        expected = entropy_segments(entropies.entropy(2.0), teacher, student)
        found = numbers[f"by_{order}_entropy"]["KD"]
        assert [s["gap"] for s in found] == [list(s.gap) for s in expected]
        assert f"{expected[-1].gap[0]:+.1f} [" in report.table()
    assert numbers["samples"] == 40 and numbers["temperature"] == 2.0


def test_too_few_samples_for_segments_are_told():
    with pytest.raises(UserError, match="9 samples are too few for 10 segments"):
        segments_result(samples(0, 9), {"KD": samples(1, 9)}, temperature=1.0)


def test_separation_of_each_network(tmp_path):
    teacher = samples(0)
    of = {"KD": samples(1), "teacher": teacher}
    options = {"names": [*"abcd"], "temperature": 1.0, "seed": 0}
    report = separation_result(of, teacher, [["KD", "teacher"]], **options)
    found = {
        "KD": separate(of["KD"], teacher, temperature=1.0),
        "teacher": separate(teacher, None, temperature=1.0),
    }
    report.write(str(tmp_path))
    networks = read(tmp_path, "tsne")["networks"]
    assert {name: n["calinski_harabasz"] for name, n in networks.items()} == {
        name: s.index for name, s in found.items()
    }


def test_landscapes_with_and_without_a_training(tmp_path):
    networks = {}
    for i, name in enumerate(("early", "late", "teacher")):
        coarse = explore(lambda a, b, i=i: 3 - i + a**2 + b**2, 11)
        fine = explore(lambda a, b, i=i: 3 - i + a**2 + b**2, 21, coarser=coarse)
        networks[name] = [coarse, fine]
    options = {
        "rows": [["early", "late", "teacher"]],
        "level": 2.5,
        "teacher": "teacher",
        "setting": {"images": 7},
    }
    runs = {"KD": {10: "early", 20: "late"}}
    report = landscapes_result(networks, runs=runs, **options)
    report.write(str(tmp_path))
    numbers, areas = read(tmp_path, "landscape_contours"), read(tmp_path, "landscape_area")
    assert numbers["images"] == 7
    for name, iteration in (("early", "10"), ("late", "20")):
        fine = networks[name][1]
        assert numbers["networks"][name][1]["variance"] == fine.variance
        assert areas["runs"]["KD"][iteration] == fine.area_below(2.5)
        assert read(tmp_path, "landscape_surfaces")["networks"][name]["losses"] == (
            fine.losses.tolist()
        )
    assert areas["teacher"] == networks["teacher"][1].area_below(2.5)
    coarse = {name: of[:1] for name, of in networks.items()}
    report = landscapes_result(coarse, runs={}, **options)
    assert list(report.figures) == ["landscape_contours", "landscape_surfaces"]
    assert len(report.headers) == len(report.rows[0]) == 4
