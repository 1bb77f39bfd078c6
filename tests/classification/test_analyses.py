"""classification.analyses: what each analysis asks of the networks."""

import pytest
import torch

from classification.analyses import (
    ANALYSES,
    calibration_of,
    landscape_of,
    segments_of,
    separation_of,
    weights_of,
)
from classification.analysis import Network, Networks, collect_samples, read_batches
from classification.models import build_classifier
from classification.sources import source_of
from eakd_det.analysis.runs import Run
from eakd_det.utils.errors import UserError


@pytest.fixture
def networks(cfg):
    """Two checkpoints of a run and a teacher."""
    found = []
    for i, name in enumerate(("early", "late", "teacher")):
        torch.manual_seed(i)
        model = build_classifier("resnet8", 10).eval().requires_grad_(False)
        run = Run(name, "KD", "KD", f"{name}.pth")
        found.append(Network(name, model, None if name == "teacher" else run))
    return Networks(cfg, found[2], found[:2])


@pytest.fixture
def seen(networks):
    """Label -> images that its network has answered."""
    counts = dict.fromkeys(["early", "late", "teacher"], 0)
    for network in networks.all:

        def count(_, args, output, label=network.label):
            counts[label] += len(args[0])

        network.model.register_forward_hook(count)
    return counts


def test_segments_need_one_answer_to_each_test_image(networks, seen):
    report = segments_of(networks)
    assert seen == {"early": 500, "late": 500, "teacher": 500}
    assert [row[:2] for row in report.rows][::2] == [["early", "teacher"], ["early", "student"]]
    with pytest.raises(UserError, match="--teacher"):
        segments_of(Networks(networks.cfg, None, networks.students))


def test_weights_need_one_answer_to_each_test_image(networks, seen):
    report = weights_of(networks)
    assert seen == {"early": 500, "late": 500, "teacher": 500}
    assert [row[0] for row in report.rows] == ["early", "late"]
    with pytest.raises(UserError, match="--teacher"):
        weights_of(Networks(networks.cfg, None, networks.students))


def test_calibration_needs_one_answer_to_each_test_image(networks, seen):
    (report,) = calibration_of(networks, save_calibrated="")
    assert seen == {"early": 500, "late": 500, "teacher": 500}
    assert [row[0] for row in report.rows] == ["early", "late", "teacher"]
    first = Networks(networks.cfg, None, networks.students[:1])
    (alone,) = calibration_of(first, save_calibrated="")
    assert alone.rows == report.rows[:1]


def test_a_saved_teacher_is_calibrated(networks, tmp_path):
    cfg, teacher, path = networks.cfg, networks.teacher, str(tmp_path / "calibrated.pth")
    (samples,) = collect_samples([teacher], read_batches(cfg))
    targets = torch.eye(10)[samples.labels] - 0.1
    solution = torch.linalg.lstsq(samples.features, targets).solution
    teacher.model.fc.weight.copy_(40 * solution.T)
    teacher.model.fc.bias.zero_()
    report, saved = calibration_of(networks, save_calibrated=path)
    (top1, nll), numbers = report.rows[-1][1:3], report.figures["calibration"][1]
    temperature = numbers["networks"]["teacher"]["temperature"]
    assert saved.rows == [["teacher", temperature]] and saved.files == [path] and temperature > 1.5
    model = build_classifier("resnet8", 10)
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    again = Networks(cfg, None, [Network("saved", model.eval(), Run("saved", "x", "x"))])
    (report,) = calibration_of(again, save_calibrated="")
    numbers = report.figures["calibration"][1]["networks"]["saved"]
    assert numbers["temperature"] == pytest.approx(1, rel=1e-3)
    assert numbers["top1"] == top1 and numbers["before"]["nll"] < nll


def test_figures_stay_if_no_checkpoint_can_be_written(networks, tmp_path):
    path = tmp_path / "x.pth"
    networks.teacher.model.fc.weight.mul_(1e4)  # at random, and sure of it
    results = calibration_of(networks, save_calibrated=str(path))
    assert next(results).figures
    with pytest.raises(UserError, match="at the bound"):
        next(results)
    assert not path.exists()

    _, saved = calibration_of(networks, save_calibrated=str(path), temperature=0.5)
    assert saved.rows == [["teacher", 0.5]] and path.exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "--temperature needs --save-calibrated"),
        ("calibrated", "ends with .pth"),
        ("x.pth", "exists"),
    ],
)
def test_flags_of_calibration_are_checked_before_a_network_is_loaded(
    path, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_text("mine")
    flags = {"config_file": "", "teacher": "", "save_calibrated": path, "temperature": 2.0}
    with pytest.raises(UserError, match=message):
        ANALYSES["calibration"]([], **flags)


def test_separation_needs_one_answer_to_each_chosen_image(networks, seen):
    report = separation_of(networks, num_images=60, seed=0)
    assert seen == {"early": 60, "late": 60, "teacher": 60}
    assert [row[0] for row in report.rows] == ["early", "late", "teacher"]
    alone = separation_of(Networks(networks.cfg, None, networks.students), num_images=60, seed=0)
    assert [row[1] for row in alone.rows] == [row[1] for row in report.rows[:2]]


def test_classes_go_by_their_names_where_these_are_known(networks, monkeypatch):
    monkeypatch.setattr(source_of(networks.cfg.DATASET), "names", tuple("abcdefghij"))
    report = separation_of(networks, num_images=60, seed=0)
    figure, _ = report.figures["tsne"]
    assert sorted(text.get_text() for text in figure.axes[0].texts) == list("abcdefghij")


def test_landscapes_come_coarse_first_and_compute_each_point_once(networks, monkeypatch):
    asked = []

    def bowl(network, batches, seed):
        def loss(alpha, beta):
            asked.append((network.label, alpha, beta))
            return 1 + alpha**2 + beta**2

        return loss

    monkeypatch.setattr("classification.analyses.plane_loss", bowl)
    monkeypatch.setattr(Run, "iteration", lambda run: {"early": 10, "late": 20}[run.label])
    options = {"half_width": 0.5, "level": 1.2, "num_images": 9, "seed": 0}
    coarse, fine = landscape_of(networks, size=21, **options)
    assert len(asked) == len(set(asked)) == 3 * 21 * 21
    assert {abs(x) for _, *place in asked[: 3 * 121] for x in place} <= {0, 0.1, 0.2, 0.3, 0.4, 0.5}
    for report, points in ((coarse, 121), (fine, 441)):
        _, numbers = report.figures["landscape_contours"]
        assert numbers["networks"]["late"][-1]["points"] == points
        assert (numbers["images"], numbers["half_width"]) == (9, 0.5)
        _, areas = report.figures["landscape_area"]
        assert set(areas["runs"]["KD"]) == {10, 20}
