import copy
import itertools
from collections import Counter

import pytest
import torch
from fvcore.nn.precise_bn import update_bn_stats
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from classification.data import read_images
from classification.distillers import DISTILLERS
from classification.engine import build_distilled
from classification.models import build_classifier
from eakd_det.distillers import EA_MODES
from eakd_det.losses import dkd_loss, entropy_weight, kd_loss
from eakd_det.modeling.recorder import record
from eakd_det.utils.errors import UserError

from .batches import batch_of, data_of

METHODS = sorted(DISTILLERS)
WITH_EA = [name for name in METHODS if DISTILLERS[name].has_ea_form]


def build(cfg, *methods, **ea):
    cfg.DISTILL.METHODS = methods
    cfg.DISTILL.EA.ENABLED = bool(ea)
    for key, value in ea.items():
        cfg.DISTILL.EA[key.upper()] = value
    torch.manual_seed(cfg.SEED)
    return build_distilled(cfg).train()


def batch(distilled, number=6):
    images = read_images(data_of("digits"), is_train=True, num_views=distilled.num_views)
    return batch_of(images, list(range(number)), 3)


def losses(distilled, number=6):
    torch.manual_seed(1)
    return distilled(batch(distilled, number))


def total(distilled, number=6):
    return sum(losses(distilled, number).values())


@pytest.mark.parametrize("is_another_order", [False, True])
def test_images_that_the_teacher_calls_by_their_label(cfg, storage, caplog, is_another_order):
    """Here the labels are what it says, or the next class."""
    distilled = build(cfg, "KD")
    data = batch(distilled, 50)
    data["labels"] = distilled.teacher.logits(data["views"][0]).argmax(dim=1)
    if is_another_order:
        data["labels"] = (data["labels"] + 1) % 10
    with caplog.at_level("INFO"):
        for storage.iter in (17, 18, 19, 20, 39):
            distilled(data)
    [told] = [r for r in caplog.records if "as their label" in r.message]
    share = 0 if is_another_order else 100
    assert f"classifies {share} % of 150 training images as their label" in told.message
    assert told.levelname == ("WARNING" if is_another_order else "INFO")


def test_features_alone_may_be_of_other_classes(cfg, storage):
    assert not build(cfg, "REVIEWKD").objective.agreement.is_open
    assert build(cfg, "REVIEWKD", mode="full").objective.agreement.is_open


@pytest.mark.parametrize("method", ["KD", "FCFD"])
def test_copies_share_the_teacher(cfg, storage, method):
    """A moving average of the weights leaves it where it is, and in its mode."""
    distilled = build(cfg, method)
    losses(distilled)  # prepares the teacher
    average = AveragedModel(distilled)
    other, teacher = average.module, distilled.teacher
    assert other.teacher is teacher and other.student is not distilled.student
    assert losses(copy.deepcopy(distilled)) == losses(distilled)
    is_training = teacher.model.training
    other.eval().double()
    assert teacher.model.training == is_training == (method == "FCFD")
    assert next(teacher.model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("method", ["KD", "FCFD"])
def test_without_gradients_no_teacher_runs(cfg, storage, method):
    distilled = build(cfg, method)
    with record(teacher=distilled.teacher.model) as calls:
        update_bn_stats(distilled, itertools.repeat(batch(distilled)), 2)
    assert not calls["teacher"]
    with torch.no_grad():
        assert losses(distilled).keys() == {"loss_cls"}


@pytest.mark.parametrize(("name", "loss"), [("KD", kd_loss), ("DKD", dkd_loss)])
def test_the_plain_method_and_its_ea_form_bit_for_bit(cfg, storage, name, loss):
    cfg.TEACHER.FAST = False
    distilled = build(cfg, name)
    data = batch(distilled)
    (images,), labels = data["views"], data["labels"]
    teacher_logits = distilled.teacher.model(images)
    state = {k: v.clone() for k, v in distilled.student.state_dict().items()}
    student_logits = distilled.student(images)
    distilled.student.load_state_dict(state)
    labels_of_loss = (labels,) if name == "DKD" else ()
    got = distilled(data)
    assert got["loss_cls"].equal(F.cross_entropy(student_logits, labels))
    expected = loss(student_logits, teacher_logits, *labels_of_loss, reduction="none").sum() / 6
    assert got[f"loss_{name.lower()}"].equal(expected)
    weight = entropy_weight(student_logits, teacher_logits)
    weighted = loss(
        student_logits, teacher_logits, *labels_of_loss, weight=weight, reduction="none"
    )
    got = build(cfg, name, mode="full")(data)
    torch.testing.assert_close(got[f"loss_{name.lower()}"], weighted.sum() / 6, rtol=0, atol=0)


@pytest.mark.parametrize("name", WITH_EA)
def test_ea_and_its_modes_change_every_method(cfg, storage, name):
    plain = losses(build(cfg, name))
    found = [plain]
    again = losses(build(cfg, name))
    assert all(plain[key].equal(again[key]) for key in plain)
    for mode in EA_MODES:
        weighted = losses(build(cfg, name, mode=mode))
        assert weighted["loss_cls"].equal(plain["loss_cls"])
        found.append(weighted)
    found.append(losses(build(cfg, name, mode="full", temperature=1.0)))
    found.append(losses(build(cfg, name, mode="full", bound=100.0, temperature=3.0)))
    # Apart from the cross-entropy, beside which a small loss is rounded.
    values = [sum(v for key, v in x.items() if key != "loss_cls").item() for x in found]
    assert len(set(values)) == len(values)


def test_a_static_rival_has_no_ea_form(cfg):
    with pytest.raises(UserError, match="WTTM has no EA form"):
        build(cfg, "WTTM", mode="full")


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_one_trains(cfg, storage, name):
    for number in (1, 2):
        distilled = build(cfg, name)
        loss = total(distilled, number)
        loss.backward()
        assert torch.isfinite(loss)
        for key, parameter in distilled.named_parameters():
            if "bridges" in key and parameter.grad is None:
                continue  # of a path that was not drawn
            assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", METHODS)
def test_every_option_changes_the_loss(cfg, storage, name):
    storage.iter = 4  # of an epoch that is not the last of a warm-up
    before = total(build(cfg, name)).item()
    for key, value in list(cfg.DISTILL[name].items()):
        if key == "EPOCHS":
            continue  # of a curriculum, which changes a gradient
        cfg.DISTILL[name][key] = (not value) if isinstance(value, bool) else value + 0.37 + value
        if key == "WARMUP":
            cfg.DISTILL[name][key] = 20.0
        assert total(build(cfg, name)).item() != before, key
        cfg.DISTILL[name][key] = value
    cfg.DISTILL.CE_WEIGHT = 0.3
    assert total(build(cfg, name)).item() != before


def test_the_curriculum_of_the_temperature(cfg, storage):
    gradients = []
    for epochs in (10, 20):
        cfg.DISTILL.CTKD.EPOCHS = epochs
        distilled = build(cfg, "CTKD")
        total(distilled).backward()
        (parameter,) = distilled.adapters["CTKD"].parameters()
        gradients.append(parameter.grad.item())
    assert gradients[0] != 0 and gradients[0] != gradients[1]


def test_warmup_counts_epochs(cfg, storage):
    cfg.DISTILL.METHODS, cfg.DISTILL.KD.WARMUP = ("KD",), 4.0
    values = []
    for epoch in (1, 2, 4, 5):
        torch.manual_seed(0)
        distilled = build_distilled(cfg, steps_per_epoch=3).train()
        storage.iter = 3 * epoch - 1
        values.append(losses(distilled)["loss_kd"].item())
    first = values[0]
    assert values == pytest.approx([first, 2 * first, 4 * first, 4 * first], rel=1e-6)


def test_the_teacher_is_frozen_and_no_part_of_the_model(cfg, storage):
    distilled = build(cfg, "KD", mode="full")
    losses(distilled)  # which prepares it
    before = {k: v.clone() for k, v in distilled.teacher.model.state_dict().items()}
    total(distilled).backward()
    after = distilled.teacher.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(p.requires_grad for p in distilled.teacher.model.parameters())
    names = {key for key, _ in distilled.named_parameters()}
    assert names == {f"student.{key}" for key, _ in distilled.student.named_parameters()}
    distilled.double()
    assert next(distilled.teacher.model.parameters()).dtype == torch.float64


def test_methods_do_not_change_the_students_start(cfg):
    plain = build(cfg).student.state_dict()
    for name in METHODS:
        ours = build(cfg, name).student.state_dict()
        assert all(torch.equal(plain[key], ours[key]) for key in plain)


def test_channels_last_gives_the_same(cfg, storage):
    one = losses(build(cfg, "DKD", "REVIEWKD", mode="full"))
    cfg.MODEL.CHANNELS_LAST = True
    distilled = build(cfg, "DKD", "REVIEWKD", mode="full")
    weight = next(p for p in distilled.teacher.model.parameters() if p.dim() == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(losses(distilled), one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("methods", "views"), [(("KD", "DKD", "CTKD"), 1), (("MLD", "KD"), 2), (("REVIEWKD", "PAD"), 1)]
)
def test_both_networks_run_once_a_view(cfg, storage, methods, views):
    distilled = build(cfg, *methods, mode="full")
    losses(distilled)  # the first batch also prepares the teacher
    calls = Counter()
    for network in (distilled.student, distilled.teacher.model):
        for name in ("conv1", "fc"):
            module = network.get_submodule(name)
            module.register_forward_hook(lambda module, *_: calls.update([module]))
    losses(distilled)
    assert list(calls.values()) == [views] * 4


def norms(model):
    return [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_a_fast_teacher_is_fused_on_the_first_training_batch(cfg, storage):
    expected = losses(build(cfg, "DKD", "REVIEWKD", mode="full"))
    distilled = build(cfg, "DKD", "REVIEWKD", mode="full")
    teacher = distilled.teacher.model
    distilled.eval()(batch(distilled))
    assert norms(teacher)
    distilled.train()
    torch.testing.assert_close(losses(distilled), expected, rtol=0, atol=0)
    assert not norms(teacher) and norms(distilled.student)
    assert teacher.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert distilled.student.layer1[0].conv1.weight.is_contiguous()
    cfg.TEACHER.FAST = False
    slow = build(cfg, "DKD", "REVIEWKD", mode="full")
    values = losses(slow)
    assert norms(slow.teacher.model) and any(not values[k].equal(expected[k]) for k in values)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "FCFD"])
def test_every_method_takes_a_teacher_of_any_precision(cfg, storage, name):
    def step():
        distilled = build(cfg, name, **({"mode": "full"} if name in WITH_EA else {}))
        found = losses(distilled)
        assert all(loss.dtype == torch.float32 for loss in found.values())
        sum(found.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in distilled.parameters())
        return found[f"loss_{name.lower()}"].item()

    values = {"": step()}
    for precision in ("bfloat16", "float16", "amp"):
        cfg.TEACHER.PRECISION = precision
        values[precision] = step()
        assert values[precision] == pytest.approx(values[""], rel=0.1, abs=1e-3)
    assert len(set(values.values())) >= 3  # "amp" is float16 here, as is SOLVER.AMP.DTYPE
    cfg.SOLVER.AMP.DTYPE = "bfloat16"
    assert step() != values["amp"]


def test_a_precision_of_its_own_keeps_the_teacher_out_of_autocast(cfg, storage):
    values = []
    for cfg.TEACHER.PRECISION in ("", "float32"):
        distilled = build(cfg, "KD")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            values.append(losses(distilled)["loss_kd"].item())
    assert values[0] != values[1]


def test_precisions_that_do_not_exist_are_refused(cfg):
    cfg.TEACHER.PRECISION = "half"
    with pytest.raises(UserError, match="TEACHER.PRECISION: 'half' is unknown; choose from"):
        build(cfg, "KD")
    cfg.TEACHER.PRECISION, cfg.SOLVER.AMP.DTYPE = "amp", "half"
    with pytest.raises(UserError, match="SOLVER.AMP.DTYPE: 'half' is unknown"):
        build(cfg, "KD")


def test_entropies_are_logged_now_and_then(cfg, storage):
    distilled = build(cfg, "CTKD")
    losses(distilled)
    assert not storage.latest()
    storage.iter = 19
    losses(distilled)
    latest = {key: value for key, (value, _) in storage.latest().items()}
    assert latest["distill/temperature"] == pytest.approx(15.62, abs=0.01)
    assert 0 < latest["distill/images/teacher_entropy"] <= torch.tensor(10.0).log()
    assert {"distill/images/w_ea", "distill/images/w_ea_p90"} <= latest.keys()


def test_networks_with_other_stages_are_refused_for_features(cfg, tmp_path):
    model = build_classifier("ResNet18", 10)
    torch.save(model.state_dict(), cfg.TEACHER.WEIGHTS)
    cfg.TEACHER.NAME = "ResNet18"
    build(cfg, "KD")
    with pytest.raises(UserError, match="student has 4 stages and the teacher 5"):
        build(cfg, "REVIEWKD")


def test_external_models_are_teachers_and_students(cfg, storage):
    cfg.TEACHER.NAME = "torchvision:resnet18"
    model = build_classifier(cfg.TEACHER.NAME, 10)
    torch.save(model.state_dict(), cfg.TEACHER.WEIGHTS)
    cfg.TEACHER.LAYERS = ("relu", "layer1", "layer2", "layer3")
    distilled = build(cfg, "DKD", "REVIEWKD", mode="full")
    total(distilled, 2).backward()
    cfg.TEACHER.LAYERS = ()
    with pytest.raises(UserError, match="LAYERS"):
        build(cfg, "REVIEWKD")


def test_the_teacher_stays_as_it_is_but_in_fcfd(cfg, storage):
    distilled = build(cfg, "KD")
    assert distilled.training and not distilled.teacher.model.training
    distilled.eval()
    distilled = build(cfg, "FCFD")
    assert distilled.teacher.model.training
    assert not distilled.eval().teacher.model.training


def test_fcfd_goes_with_logits_alone(cfg, storage):
    got = losses(build(cfg, "FCFD", "DKD", mode="full"))
    assert got.keys() == {"loss_cls", "loss_fcfd_l2", "loss_fcfd_kl", "loss_dkd"}
    for other in ("REVIEWKD", "MLD", "PAD"):
        with pytest.raises(UserError, match=f"FCFD runs both networks itself.*{other}"):
            build(cfg, "FCFD", other)


def test_fcfd_keeps_its_teachers_norms_and_in_one_precision(cfg, storage):
    distilled = build(cfg, "FCFD")
    number = len(norms(distilled.teacher.model))
    losses(distilled)
    assert len(norms(distilled.teacher.model)) == number > 0
    cfg.TEACHER.PRECISION = "bfloat16"
    with pytest.raises(UserError, match="FCFD's paths cross .*: leave TEACHER.PRECISION empty"):
        build(cfg, "FCFD")


def test_fcfd_refuses_what_it_cannot_cut_or_bridge(cfg):
    for name, words in [
        ("torchvision:resnet18", "ResNet does not have; take a model"),
        ("ResNet18", "FCFD: .*5"),
    ]:
        torch.save(build_classifier(name, 10).state_dict(), cfg.TEACHER.WEIGHTS)
        cfg.TEACHER.NAME = name
        with pytest.raises(UserError, match=words):
            build(cfg, "FCFD")


def test_models_that_give_no_logits_are_refused(cfg):
    cfg.MODEL.NAME = "timm:test_vit"
    with pytest.raises(UserError, match="test_vit does not take images of 8 x 8 pixels"):
        build(cfg)


def test_a_published_teacher_sees_images_as_it_was_trained_on_them(cfg, monkeypatch):
    """As of timm: this model's weights expect a mean and deviation of 0.5."""

    def published(name, num_classes, *, pretrained, new_head):
        model = build_classifier("torchvision:resnet18", num_classes)
        if pretrained:
            model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        return model

    monkeypatch.setattr("classification.teacher.build_classifier", published)
    cfg.TEACHER.NAME, cfg.TEACHER.WEIGHTS = "timm:any", "pretrained"
    teacher = build(cfg, "KD").teacher.model
    source = read_images(data_of("digits"), is_train=False).source
    pixels = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (source.mean, source.std))
    ours = teacher((pixels - mean) / std)
    teacher._forward_pre_hooks.clear()
    torch.testing.assert_close(ours, teacher((pixels - 0.5) / 0.5))
