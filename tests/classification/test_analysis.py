"""classification.analysis: networks and samples of runs, and the loss on a plane."""

import os

import pytest
import torch
from torch import nn

from classification.analysis import (
    Network,
    collect_samples,
    load_networks,
    plane_loss,
    read_batches,
    training_batches,
)
from classification.data import read_images
from classification.models import build_classifier
from classification.teacher import build_teacher
from eakd_det.analysis.directions import WeightPlane
from eakd_det.analysis.runs import Run
from eakd_det.utils.errors import UserError

from .batches import data_of


def make_run(cfg, name="run", model="resnet8", **options):
    """A run's folder with random weights, whose norms and running statistics are no defaults."""
    cfg = cfg.clone()
    folder = os.path.join(os.path.dirname(cfg.OUTPUT_DIR), name)
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    cfg.MODEL.NAME = model
    os.makedirs(folder)
    with open(os.path.join(folder, "config.yaml"), "w") as f:
        f.write(cfg.dump())
    torch.manual_seed(len(name))
    network = build_classifier(model, 10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
    torch.save({"model": network.state_dict()}, os.path.join(folder, "model_final.pth"))
    return Run(name, name, folder)


@pytest.fixture
def distilled(cfg):
    """A config with a method, so with a teacher."""
    cfg.DISTILL.METHODS = ("KD",)
    return cfg


def test_networks_of_runs_and_their_teacher(distilled):
    runs = [make_run(distilled, "a"), make_run(distilled, "bb", "resnet14")]
    networks = load_networks(runs)
    assert [n.label for n in networks.all] == ["a", "bb", "teacher"]
    x = torch.rand(2, 3, 8, 8)
    expected = build_teacher(distilled).model(x)
    torch.testing.assert_close(networks.needed_teacher().model(x), expected)
    for network in networks.all:
        assert not network.model.training
        assert not any(p.requires_grad for p in network.model.parameters())
    saved = torch.load(runs[0].weights, weights_only=True)["model"]
    assert all(saved[k].equal(v) for k, v in networks.students[0].model.state_dict().items())


def test_a_run_may_be_named_as_the_teacher(distilled):
    student, other = make_run(distilled, "a"), make_run(distilled, "other", "resnet20")
    networks = load_networks([student], teacher=other)
    assert networks.teacher.run is other and networks.teacher.label == "teacher"
    saved = torch.load(other.weights, weights_only=True)["model"]
    assert all(saved[k].equal(v) for k, v in networks.teacher.model.state_dict().items())


def test_a_student_alone_is_compared_with_the_teacher_of_the_next(distilled):
    alone = make_run(distilled, "alone", **{"TEACHER.NAME": "", "DISTILL.METHODS": ()})
    with pytest.raises(UserError, match="None of the runs has a teacher: .*--teacher"):
        load_networks([alone]).needed_teacher()
    assert [n.label for n in load_networks([alone]).all] == ["alone"]
    assert load_networks([alone, make_run(distilled, "b")]).teacher is not None


def test_mistakes_are_told(distilled, tmp_path):
    run = make_run(distilled, "a")
    other = make_run(distilled, "bb", **{"DATASET.NAME": "fashion_mnist"})
    with pytest.raises(UserError, match="bb is of fashion_mnist, and a of digits"):
        load_networks([run, other])
    with pytest.raises(UserError, match="bb is of fashion_mnist"):
        load_networks([run], teacher=other)
    os.remove(os.path.join(run.folder, "config.yaml"))
    with pytest.raises(UserError, match="--config-file"):
        load_networks([run])
    (tmp_path / "run.yaml").write_text(distilled.dump())
    networks = load_networks([run], config_file=str(tmp_path / "run.yaml"))
    assert networks.students[0].run is run
    torch.save({"model": build_classifier("resnet14", 10).state_dict()}, run.weights)
    with pytest.raises(UserError, match="a: MODEL.WEIGHTS does not fit"):
        load_networks([run], config_file=str(tmp_path / "run.yaml"))


@pytest.mark.parametrize("name", ["resnet8", "ShuffleV1", "wrn_16_1", "other"])
def test_samples_are_what_the_network_says_of_each_image(cfg, name):
    torch.manual_seed(0)
    if name == "other":
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 10))
    else:
        model = build_classifier(name, 10)
    model.eval()
    cfg.TEST.BATCH_SIZE = 7
    loader = read_batches(cfg, 20)
    (samples,) = collect_samples([Network("x", model)], loader)
    images = torch.cat([batch["views"][0] for batch in loader])
    torch.testing.assert_close(samples.logits, model(images).detach(), rtol=1e-4, atol=1e-5)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    torch.testing.assert_close(linear(samples.features).detach(), samples.logits)
    assert samples.features.shape == (20, linear.in_features)


def test_images_are_read_once_for_all_networks(cfg, monkeypatch):
    models = [build_classifier("resnet8", 10).eval() for _ in range(2)]
    seen = []
    for i, model in enumerate(models):
        model.register_forward_hook(lambda _, x, out, i=i: seen.append((i, len(x[0]))))
    cfg.TEST.BATCH_SIZE = 16
    found = collect_samples(
        [Network(str(i), m) for i, m in enumerate(models)], read_batches(cfg, 32)
    )
    assert seen == [(0, 16), (1, 16), (0, 16), (1, 16)]
    assert found[0].labels.equal(found[1].labels)


def test_images_are_a_fixed_choice_without_augmentation(cfg):
    everything = read_images(data_of("digits"), is_train=False)
    all_labels = torch.cat([batch["labels"] for batch in read_batches(cfg)])
    assert all_labels.equal(everything.labels)
    few, same = (torch.cat([batch["indices"] for batch in read_batches(cfg, 50)]) for _ in range(2))
    assert few.equal(same) and len(set(few.tolist())) == 50 and not few.equal(torch.arange(50))
    assert sum(len(batch["labels"]) for batch in read_batches(cfg, 9999)) == 500


def test_training_images_are_those_of_the_run(cfg):
    cfg.DATASET.TRAIN_SIZE = 33
    own = read_images(data_of("digits"), is_train=True, size=33)
    ((images, labels),) = training_batches(cfg, 1000)
    assert labels.equal(own.labels)
    source = own.source
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (source.mean, source.std))
    torch.testing.assert_close(images, (own.pixels / 255 - mean) / std)
    assert len(training_batches(cfg, 5)[0][1]) == 5


@pytest.fixture
def small(cfg):
    """A network with random statistics, and two batches of digits of unequal size."""
    run = make_run(cfg)
    network = load_networks([run]).students[0]
    cfg.TEST.BATCH_SIZE = 8
    return network, training_batches(cfg, 12)


def test_the_loss_on_the_plane_is_that_of_a_network_with_those_weights(small):
    network, batches = small
    loss, plane = plane_loss(network, batches, seed=3), WeightPlane(network.model, 3)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for place in [(0.0, 0.0), (0.7, -0.4), (-1.0, 1.0)]:
        other = build_classifier("resnet8", 10).eval()
        other.load_state_dict(network.model.state_dict() | plane.weights(*place))
        expected = nn.functional.cross_entropy(other(images), labels).item()
        assert loss(*place) == pytest.approx(expected, rel=1e-5)


def test_a_filter_of_a_negative_norm_goes_the_other_way(small):
    """Folded batch norms change a direction in nothing else."""
    network, batches = small
    network.model.bn1.weight[3] *= -1
    place = 0.4, 0.6
    weights = WeightPlane(network.model, 0).weights(*place)
    own = network.model.conv1.weight[3]
    weights["conv1.weight"][3] = 2 * own - weights["conv1.weight"][3]
    other = build_classifier("resnet8", 10).eval()
    other.load_state_dict(network.model.state_dict() | weights)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = nn.functional.cross_entropy(other(images), labels).item()
    assert plane_loss(network, batches, 0)(*place) == pytest.approx(expected, rel=1e-5)


def test_the_plane_s_loss_leaves_the_network_as_it_was(small):
    network, batches = small
    before = {name: x.clone() for name, x in network.model.state_dict().items()}
    loss = plane_loss(network, batches, seed=0)
    values = {loss(*place) for place in [(0.0, 0.0), (0.5, 0.5), (1.0, -1.0)]}
    assert len(values) == 3
    assert not network.model.training
    for name, x in network.model.state_dict().items():
        assert x.equal(before[name]), name


def test_several_batches_are_one_mean(small):
    network, batches = small
    whole = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
    assert [len(labels) for _, labels in batches] == [8, 4]
    place = 0.3, 0.2
    assert plane_loss(network, batches, 0)(*place) == pytest.approx(
        plane_loss(network, whole, 0)(*place), rel=1e-5
    )
