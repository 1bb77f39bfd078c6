import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.testing import assert_close

from eakd_det.distillers import DISTILLERS, EA_MODES, DistillationObjective, LogitDistiller
from eakd_det.distillers.ea import BACKGROUND_WEIGHTS, weigh_pair
from eakd_det.distillers.entropy_statistics import LOG_PERIOD
from eakd_det.distillers.label_agreement import ENOUGH
from eakd_det.losses import combine_entropies, dkd_loss, entropy_weight, kd_loss, wttm_loss
from eakd_det.utils.errors import UserError
from tests.reads import Operators, reads

from .batches import make_batch, make_pair

EA = {"enabled": True, "mode": "full", "temperature": 2.0, "bound": 0.0}
CHANNELS = [5], [5]


def make_objective(*names, ea=EA, **options):
    methods = {name: {"weight": 1.0, **DISTILLERS[name].defaults, **options} for name in names}
    return DistillationObjective(DISTILLERS, methods, ea)


def test_losses_are_weighted_and_named():
    pair = make_pair(suffix="_stage1")
    student, teacher = pair.student_logits, pair.teacher_logits
    with EventStorage(0):
        losses = make_objective("KD", "DKD", weight=0.5)(make_batch(pair), {})
    weight = entropy_weight(student, teacher, temperature=2.0)
    assert torch.equal(pair.sample_weight, weight)
    expected = {
        "loss_kd_stage1": 0.5 * kd_loss(student, teacher, weight=weight),
        "loss_dkd_stage1": 0.5 * dkd_loss(student, teacher, pair.labels, weight=weight),
    }
    assert_close(losses, expected)


@pytest.mark.parametrize("background", BACKGROUND_WEIGHTS)
@pytest.mark.parametrize("mode", EA_MODES)
def test_options_of_the_weight_count(mode, background):
    ea, pair, other = {**EA, "mode": mode, "bound": 5.0}, make_pair(), make_pair()
    objective = make_objective("KD", ea={**ea, "background": background})
    entropies = objective.weigh([pair])
    assert_close(entropies, [pair.entropies(2.0)])
    options = {"bound": 5.0, "background_weight": BACKGROUND_WEIGHTS[background]}
    weigh_pair(other, *entropies[0], mode=EA_MODES[mode], **options)
    assert torch.equal(pair.sample_weight, other.sample_weight)
    assert objective.needs_mean == (mode in ("matched", "normalized"))


def test_each_pair_has_its_own_mean():
    """As the stages of a cascade."""
    pairs = [make_pair(seed) for seed in (0, 1)]
    make_objective("KD", ea={**EA, "mode": "normalized"}).weigh(pairs)
    for pair in pairs:
        weight = entropy_weight(pair.student_logits, pair.teacher_logits, temperature=2.0)
        assert_close(pair.sample_weight, weight / weight.mean())


def test_background_alone_is_ignored():
    """The sum over the foreground is divided by the number of all samples."""
    pair = make_pair()
    with EventStorage(0):
        losses = make_objective("KD", ea={**EA, "background": "ignored"})(make_batch(pair), {})
    chosen = pair.labels < 3
    logits = pair.student_logits[chosen], pair.teacher_logits[chosen]
    weight = entropy_weight(*logits, temperature=2.0)
    expected = kd_loss(*logits, weight=weight, reduction="none").sum() / 7
    assert_close(losses["loss_kd"], expected)


@pytest.mark.parametrize(
    ("ea", "message"),
    [
        ({"mode": "half"}, "MODE: 'half' is unknown; choose from full, teacher, matched, norm"),
        ({"background": "none"}, "BACKGROUND: 'none' is unknown; choose from weighted, unwei"),
        ({"background": "ignored", "enabled": False}, "ignored has no effect with .* to weighted"),
    ],
)
def test_wrong_options_of_the_weight(ea, message):
    with pytest.raises(UserError, match=f"^DISTILL.EA.*{message}"):
        make_objective("KD", ea={**EA, **ea})


def test_background_without_a_method():
    make_objective(ea={**EA, "enabled": False, "background": "ignored"})


def test_without_ea_nothing_is_weighed():
    pair = make_pair()
    with EventStorage(0), Operators(torch.ops.aten._log_softmax) as softmaxes:
        losses = make_objective("KD", ea={**EA, "enabled": False})(make_batch(pair), {})
    assert_close(losses["loss_kd"], kd_loss(pair.student_logits, pair.teacher_logits))
    assert pair.sample_weight is None and len(softmaxes.seen) == 2


def test_settings_are_logged_in_one_line(caplog):
    with caplog.at_level("INFO"):
        make_objective("KD", "DKD", weight=0.5).log_settings()
        make_objective("KD", ea={**EA, "enabled": False}, warmup=4.0).log_settings()
        make_objective().log_settings()
        make_objective("KD", ea={**EA, "background": "ignored"}).log_settings()
    assert caplog.messages == [
        "Methods: KD with WEIGHT 0.5, DKD with WEIGHT 0.5; EA weight full, temperature 2",
        "Methods: KD with WEIGHT 1 after 4 epochs of warm-up; no EA weight",
        "Methods: KD with WEIGHT 1; EA weight full, temperature 2, background ignored",
    ]


def test_warmup():
    objective = make_objective("KD", warmup=4.0)
    values = []
    for epoch in (1, 2, 4, 5):
        with EventStorage(0):
            values.append(objective(make_batch(make_pair(), epoch=epoch), {})["loss_kd"].item())
    assert values == pytest.approx([values[3] / 4, values[3] / 2, values[3], values[3]])


def test_adapters_draw_nothing_from_the_student():
    objective = make_objective("KD", "REVIEWKD")
    before = torch.get_rng_state()
    adapters = objective.build_adapters(*CHANNELS)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(adapters) == ["REVIEWKD"] and not make_objective("KD").build_adapters()
    with EventStorage(0):
        losses = objective(make_batch(make_pair()), adapters)
    losses["loss_reviewkd"].backward()
    assert all(p.grad is not None for p in adapters.parameters())


def test_logits_are_compared_by_their_methods_and_by_the_weight():
    off = {**EA, "enabled": False}
    assert make_objective("KD", "REVIEWKD", ea=off).compares_logits
    assert make_objective("REVIEWKD").compares_logits
    assert not make_objective("REVIEWKD", ea=off).compares_logits
    assert not make_objective().compares_logits
    assert not make_objective("RPN").compares_logits, "anchors have weights of their own"
    assert make_objective("RPN", "REVIEWKD").compares_logits
    assert not make_objective("RPN", "REVIEWKD", ea=off).compares_logits
    assert make_objective("BOX", ea=off).compares_logits
    assert make_objective("FCFD", ea=off).compares_logits
    assert make_objective("DKD", "REVIEWKD", "KD").methods_on("logits") == ["DKD", "KD"]


def test_objectness_is_weighed_and_not_logged():
    batch = make_batch(objectness=make_pair(sigmoid=True))
    with EventStorage(LOG_PERIOD - 1) as storage:
        make_objective("RPN")(batch, {})
    entropies = batch.objectness.entropies(2.0)
    weight = combine_entropies(*entropies, 2, None)
    assert torch.equal(batch.objectness.sample_weight, weight)
    assert not storage.latest()
    labels = torch.tensor([4, 0, 0, 4, 0, 4, 4])  # 4 is background
    batch = make_batch(objectness=make_pair(sigmoid=True, labels=labels))
    with EventStorage(0):
        make_objective("RPN", ea={**EA, "background": "ignored"})(batch, {})
    assert torch.equal(batch.objectness.sample_weight, weight * (labels == 0))


def test_features_alone_need_no_logits():
    objective = make_objective("REVIEWKD", ea={**EA, "enabled": False})
    with EventStorage(LOG_PERIOD - 1) as storage:
        losses = objective(make_batch(), objective.build_adapters(*CHANNELS))
    assert losses.keys() == {"loss_reviewkd"} and not storage.latest()


def test_nothing_is_read_between_logs():
    objective = make_objective("KD", "DKD")
    with EventStorage(0) as storage:
        for storage.iter in range(LOG_PERIOD - 1):
            with reads() as names:
                objective(make_batch(make_pair()), {})
            assert not names and not storage.latest()
        storage.iter += 1
        objective(make_batch(make_pair()), {})
    assert {key.split("/")[1] for key in storage.latest()} == {"foreground", "background"}


def test_labels_are_compared_until_there_are_enough(caplog):
    """Samples of background are left out."""
    objective = make_objective("KD")
    with EventStorage(0) as storage, caplog.at_level("INFO"):
        for storage.iter in range(5 * LOG_PERIOD):
            objective(make_batch(make_pair()), {})
    [record] = [r for r in caplog.records if "as their label" in r.message]
    pair = make_pair()
    is_object = pair.labels < 3
    right = (pair.teacher_logits[:, :3].argmax(dim=1) == pair.labels)[is_object].float().mean()
    assert f"classifies {100 * right:.0f} % of {LOG_PERIOD * is_object.sum()}" in record.message
    assert LOG_PERIOD * is_object.sum() >= ENOUGH and not objective.agreement.is_open


def test_a_method_without_ea_form_is_refused():
    distillers = {"WTTM": LogitDistiller(wttm_loss, has_ea_form=False)}
    methods = {"WTTM": {"weight": 1.0}}
    DistillationObjective(distillers, methods, {**EA, "enabled": False})
    with pytest.raises(UserError, match="WTTM has no EA form"):
        DistillationObjective(distillers, methods, EA)


def test_samples_without_a_normalizer_keep_their_losses():
    pair = make_pair(normalizer=None)
    objective = make_objective("KD", "DKD")
    objective.weigh([pair])
    losses = objective.losses(make_batch(pair), {})
    assert {x.shape for x in losses.values()} == {(7,)}


def test_copies_are_apart():
    objective = make_objective("KD")
    other = copy.deepcopy(objective)
    with EventStorage(0):
        a, b = (o(make_batch(make_pair()), {}) for o in (objective, other))
    assert_close(a, b, rtol=0, atol=0)
    assert other.agreement is not objective.agreement
