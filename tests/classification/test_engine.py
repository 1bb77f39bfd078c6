import json
import os
import signal

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from classification.config import load_config
from classification.distilled import DistilledClassifier
from classification.distillers import DISTILLERS
from classification.engine import ClassifierTrainer
from classification.evaluation import TopKEvaluator, evaluate, evaluate_weights, read_test_set
from classification.loader import ViewLoader
from classification.models import build_classifier
from eakd_det.engine.hooks.random_states import random_state, set_random_state
from eakd_det.engine.signals import SIGNALS
from eakd_det.utils.errors import UserError
from tests.reads import Operators, reads
from tests.synchronisations import synchronisations


def fit(cfg, folder, *, resume=False, stop=None):
    """Train, up to `stop` iterations if given; the trainer."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    os.makedirs(folder, exist_ok=True)
    trainer = ClassifierTrainer(cfg)
    if stop is not None:
        train = trainer.train
        trainer.train = lambda start, end: train(start, stop)
    trainer.result = trainer.fit(resume=resume)
    return trainer


def state(trainer):
    return {
        "model": trainer.distilled.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.grad_scaler.state_dict(),
    }


@pytest.mark.parametrize("methods", [("KD",), ("MLD",), ("CTKD", "REVIEWKD", "PAD")])
def test_one_seed_gives_the_same_run_bit_for_bit(cfg, tmp_path, methods):
    cfg.DISTILL.METHODS = methods
    runs = [state(fit(cfg, tmp_path / name)) for name in "ab"]
    torch.testing.assert_close(*runs, rtol=0, atol=0)
    cfg.SEED = 1
    other = state(fit(cfg, tmp_path / "c"))["model"]
    assert not torch.equal(other["student.conv1.weight"], runs[0]["model"]["student.conv1.weight"])


@pytest.mark.parametrize(
    ("methods", "amp"),
    [
        (("MLD", "CTKD"), False),
        (("REVIEWKD", "PAD"), True),
        (("FCFD",), False),
        (("CWD", "PKD", "MGD"), False),
    ],
)
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(cfg, tmp_path, methods, amp, caplog):
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, True
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.ACCUMULATE = amp, 2
    with caplog.at_level("INFO"):
        straight = fit(cfg, tmp_path / "straight")
    assert f"Methods: {methods[0]} with WEIGHT " in caplog.text
    assert f"as medians of the first {straight.max_iter} iterations: loss_" in caplog.text
    fit(cfg, tmp_path / "resumed", stop=5)  # the epoch ends there, so there is a checkpoint
    resumed = fit(cfg, tmp_path / "resumed", resume=True)
    assert resumed.start_iter == 5
    torch.testing.assert_close(state(straight), state(resumed), rtol=0, atol=0)
    same = ("top1", "top5", "best_top1", "teacher_top1", "epochs")
    assert all(straight.result[key] == resumed.result[key] for key in same)


@pytest.mark.parametrize(("first", "warnings"), [(99.0, 1), (0.0, 0)])
def test_a_teacher_that_is_weaker_at_the_first_epoch(
    cfg, tmp_path, caplog, monkeypatch, first, warnings
):
    cfg.DISTILL.METHODS = ("KD",)
    top1 = iter([50.0, first, 99.0])  # of the teacher, and of the student after each epoch
    result = lambda *_: {"top1": next(top1), "top5": 100.0}  # noqa: E731
    monkeypatch.setattr("classification.engine.evaluate", result)
    monkeypatch.setattr("classification.evaluation.evaluate", result)
    fit(cfg, tmp_path / "run")
    told = [text for text in caplog.messages if "The student's first evaluation" in text]
    assert len(told) == warnings
    if warnings:
        assert "at iteration 4, gives top1 99.00, more than its teacher's 50.00" in told[0]


class Told(HookBase):
    """The run is told to stop in the step of an iteration."""

    def before_step(self):
        if self.trainer.iter == 6:
            os.kill(os.getpid(), signal.SIGUSR1)


def test_a_run_that_is_told_to_stop_goes_on_bit_for_bit(cfg, tmp_path, monkeypatch):
    """In the middle of an epoch; a run that is resumed where there is none starts."""
    cfg.DISTILL.METHODS = ("MLD", "CTKD")
    straight = fit(cfg, tmp_path / "straight", resume=True)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    build = ClassifierTrainer._build_hooks
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr(ClassifierTrainer, "_build_hooks", lambda *x: [Told(), *build(*x)])
        fit(cfg, tmp_path / "run")
    for number, handler in before.items():
        signal.signal(number, handler)
    assert stopped.value.code == 128 + signal.SIGUSR1
    resumed = fit(cfg, tmp_path / "run", resume=True)
    assert resumed.start_iter == 7
    torch.testing.assert_close(state(straight), state(resumed), rtol=0, atol=0)
    kept = [name for name in os.listdir(tmp_path / "run") if name.startswith("model_0")]
    assert kept == ["model_0000009.pth"]


def test_a_resumed_run_has_the_settings_of_its_config(cfg, tmp_path):
    fit(cfg, tmp_path / "run", stop=5)
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY = 0.02, 0.5, 1e-3
    group = fit(cfg, tmp_path / "run", resume=True).optimizer.param_groups[0]
    given = [group[key] for key in ("initial_lr", "momentum", "weight_decay")]
    assert given == [0.02, 0.5, 1e-3]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").open()]
    assert [row["lr"] for row in rows if "lr" in row][-1] == pytest.approx(0.002)


def test_a_resume_that_does_not_fit_is_in_words(cfg, tmp_path, caplog):
    cfg.SOLVER.EPOCHS, cfg.SOLVER.STEPS = 1, ()
    cfg.DISTILL.METHODS = ("KD",)
    fit(cfg, tmp_path / "run")
    cfg.SOLVER.EPOCHS = 2
    cfg.MODEL.WEIGHTS = str(tmp_path / "run" / "model_final.pth")
    with caplog.at_level("INFO"):
        fit(cfg, tmp_path / "run", resume=True)
    assert f"; {cfg.MODEL.WEIGHTS} is not read" in caplog.text
    cfg.DISTILL.METHODS = ("REVIEWKD",)
    with pytest.raises(UserError, match="cannot be resumed: .* another DISTILL.METHODS"):
        fit(cfg, tmp_path / "run", resume=True)


def test_a_new_run_leaves_the_checkpoints_of_another(cfg, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model_0000999.pth").touch()
    fit(cfg, tmp_path / "run", stop=5)
    assert (tmp_path / "run" / "model_0000999.pth").exists()


def test_what_a_run_leaves(cfg, tmp_path):
    cfg.DISTILL.METHODS = ("CTKD",)
    trainer = fit(cfg, tmp_path / "run")
    files = set(os.listdir(tmp_path / "run"))
    assert {"model_final.pth", "model_best.pth", "metrics.json", "result.json"} <= files
    kept = [name for name in files if name.startswith("model_0")]
    assert kept == ["model_0000009.pth"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == trainer.result
    assert result["epochs"] == 2 and result["seconds"] > 0
    assert 0 <= result["top1"] <= result["best_top1"] <= 100
    student = build_classifier("resnet8", 10)
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    student.load_state_dict(saved["model"])
    assert list(saved["helpers"]) == ["CTKD.u"] or len(saved["helpers"]) == 1
    assert evaluate_weights(cfg, str(tmp_path / "run" / "model_final.pth")) == {
        key: result[key] for key in ("top1", "top5")
    }
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").open()]
    assert {"top1", "top5", "loss_cls", "loss_ctkd", "lr"} <= rows[-1].keys() | rows[0].keys()


def test_a_resumed_run_keeps_as_few_checkpoints(cfg, tmp_path):
    fit(cfg, tmp_path / "run", stop=5)
    assert os.path.exists(tmp_path / "run" / "model_0000004.pth")
    fit(cfg, tmp_path / "run", resume=True)
    kept = [name for name in os.listdir(tmp_path / "run") if name.startswith("model_0")]
    assert kept == ["model_0000009.pth"]


def test_the_learning_rate_falls_after_whole_epochs(cfg, tmp_path):
    rates = []
    trainer = ClassifierTrainer(cfg)
    scheduler = trainer._build_scheduler()
    for _ in range(10):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        scheduler.step()
    assert rates == pytest.approx([0.05] * 5 + [0.005] * 5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", sorted(DISTILLERS))
def test_mixed_precision_of_every_method(cfg, tmp_path, method, dtype):
    cfg.DISTILL.METHODS = (method,)
    cfg.DISTILL.EA.ENABLED = DISTILLERS[method].has_ea_form
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = True, dtype
    cfg.MODEL.CHANNELS_LAST = True
    trainer = fit(cfg, tmp_path / "run", stop=2)
    assert all(torch.isfinite(p).all() for p in trainer.distilled.parameters())


def test_top_k_counts(cfg):
    evaluator = TopKEvaluator()
    evaluator.reset()
    logits = torch.eye(6) + 0.1 * torch.arange(6)  # each row's own class, then from the last
    labels = torch.tensor([0, 1, 2, 0, 0, 0])
    evaluator.process({"labels": labels[:4]}, logits[:4])
    evaluator.process({"labels": labels[4:]}, logits[4:])
    per_class = [25.0, 100.0, 100.0, None, None, None]
    assert evaluator.evaluate() == {"top1": 50.0, "top5": 50.0, "per_class": per_class}
    evaluator.reset()
    evaluator.process({"labels": torch.tensor([1, 0])}, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert evaluator.evaluate() == {"top1": 50.0, "top5": 100.0, "per_class": [0.0, 100.0]}


def test_an_evaluation_draws_nothing_from_the_run(cfg):
    model = DistilledClassifier(build_classifier("resnet8", 10))
    before = random_state()
    evaluate(model, read_test_set(cfg))
    one = torch.rand(1)
    set_random_state(before)
    assert torch.equal(one, torch.rand(1))


def test_a_loss_that_is_not_finite_names_the_images(cfg, tmp_path):
    cfg.SOLVER.BASE_LR = 1e30
    with pytest.raises(UserError, match="with the images number .* or smaller weights in DISTILL"):
        fit(cfg, tmp_path / "run")
    evaluate_weights(cfg, str(tmp_path / "run" / "non_finite_rank0.pth"))


def test_config_mistakes_are_in_words(cfg, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("VERSION: 2\nSOLVER:\n  EPOCH: 3\n")
    with pytest.raises(UserError, match="did you mean SOLVER.EPOCHS"):
        load_config(str(path))
    path.write_text("VERSION: 2\n")
    with pytest.raises(UserError, match="SOLVER.EPOCHS must be 1 or more, not 0"):
        load_config(str(path), ["SOLVER.EPOCHS", "0"])
    with pytest.raises(UserError, match="SEED must be 0 or more"):
        load_config(str(path), ["SEED", "-1"])
    for steps in ("(1, 240)", "(3, 2)", "(2, 2)", "(0,)", "(0.5,)"):
        with pytest.raises(UserError, match="SOLVER.STEPS .* must be increasing whole epochs"):
            load_config(str(path), ["SOLVER.STEPS", steps])
    for key, value in [
        ("DATASET.TRAIN_SIZE", "-1"),
        ("DATASET.NUM_WORKERS", "-1"),
        ("DISTILL.CTKD.EPOCHS", "0"),
        ("DISTILL.EA.TEMPERATURE", "0"),
    ]:
        with pytest.raises(UserError, match=f"{key} must be "):
            load_config(str(path), [key, value])
    for key, value, words in [
        ("MODEL.NAME", "", "MODEL.NAME is empty"),
        ("MODEL.NAME", "resnet9", "did you mean resnet"),
        ("DATASET.NAME", "", "DATASET.NAME: '' is unknown"),
        ("TEACHER.WEIGHTS", "", "teacher resnet14 has no weights: set TEACHER.WEIGHTS"),
        ("TEACHER.NAME", "", "There is no teacher: set TEACHER.CONFIG_FILE"),
        ("TEACHER.NAME", "resnet20", "TEACHER.WEIGHTS does not fit its model"),
        ("TEACHER.CONFIG_FILE", "none.yaml", "there is no file 'none.yaml'"),
        ("DISTILL.METHODS", "('KDD',)", "DISTILL.METHODS: 'KDD' is unknown; choose from KD"),
    ]:
        wrong = cfg.clone()
        wrong.DISTILL.METHODS = ("KD",)
        wrong.merge_from_list([key, value])
        with pytest.raises(UserError, match=words):
            ClassifierTrainer(wrong)
    with pytest.raises(UserError, match="MODEL.WEIGHTS is empty"):
        evaluate_weights(cfg, "")


def test_pretrained_is_for_external_models(cfg):
    cfg.MODEL.WEIGHTS = "pretrained"
    with pytest.raises(UserError, match="resnet8 has no pretrained weights"):
        ClassifierTrainer(cfg)


@pytest.mark.parametrize(
    "methods", [("KD", "DKD", "TTM", "CTKD"), ("MLD",), ("REVIEWKD", "PAD"), ("FCFD",)]
)
def test_steps_do_not_wait_for_the_device_but_for_the_losses(cfg, storage, methods):
    """Between two logged iterations no scalar is read back by the model or its views."""
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, True
    trainer = ClassifierTrainer(cfg)
    handed = next(iter(super(ViewLoader, trainer.data_loader).__iter__()))
    trainer.distilled(trainer.data_loader.views(handed))  # the first batch prepares the teacher

    def read(iteration):
        with EventStorage(iteration), Operators(torch.ops.aten.nonzero) as more, reads() as names:
            sum(trainer.distilled(trainer.data_loader.views(handed)).values()).backward()
        return more.seen + names

    assert read(3) == []
    assert "tolist" in read(19)  # which logs


def test_a_run_leaves_an_unprepared_teacher_alone(cfg, tmp_path):
    cfg.DISTILL.METHODS, cfg.TEACHER.FAST = ("KD", "REVIEWKD"), False
    before = torch.load(cfg.TEACHER.WEIGHTS, weights_only=True)["model"]
    after = fit(cfg, tmp_path / "run").distilled.teacher.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def step_of(cfg):
    """The trained weights after one step, and type and strides of a map in it."""
    trainer, maps = ClassifierTrainer(cfg), []
    conv = trainer.distilled.student.layer2[0].conv2
    conv.register_forward_hook(lambda module, args, output: maps.append(output))
    with EventStorage(0) as trainer.storage:
        trainer.before_train()
        trainer.run_step()
    return conv.weight.detach().clone(), maps[0].dtype, maps[0].stride()


def test_mixed_precision_and_memory_format_change_what_is_computed(cfg):
    cfg.DISTILL.METHODS = ("KD",)
    weight, dtype, strides = step_of(cfg)
    assert dtype == torch.float32 and strides[1] > 1
    cfg.MODEL.CHANNELS_LAST = True
    other, dtype, strides = step_of(cfg)
    assert dtype == torch.float32 and strides[1] == 1
    torch.testing.assert_close(other, weight, rtol=1e-3, atol=1e-5)
    cfg.SOLVER.AMP.ENABLED = True
    for cfg.SOLVER.AMP.DTYPE in ("bfloat16", "float16"):
        mixed, dtype, _ = step_of(cfg)
        assert str(dtype) == f"torch.{cfg.SOLVER.AMP.DTYPE}"
        assert not mixed.equal(weight)
        torch.testing.assert_close(mixed, weight, rtol=0.1, atol=1e-2)


def test_measuring_the_teacher_keeps_its_memory_format(cfg, tmp_path):
    cfg.DISTILL.METHODS, cfg.MODEL.CHANNELS_LAST = ("KD",), True
    trainer = fit(cfg, tmp_path / "run", stop=1)
    for model in (trainer.distilled.teacher.model, trainer.distilled.student):
        weight = next(p for p in model.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1)
        assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_new_run_forgets_the_best_of_an_older_one(cfg, tmp_path):
    first = fit(cfg, tmp_path / "run")
    path = tmp_path / "run" / "model_best.pth"
    saved = torch.load(path, weights_only=True)
    assert saved["metric"] == first.result["best_top1"]
    torch.save({**saved, "metric": 101.0}, path)
    assert fit(cfg, tmp_path / "run", resume=True).result["best_top1"] == 101.0
    assert fit(cfg, tmp_path / "run").result["best_top1"] == first.result["best_top1"]
    earlier = torch.load(tmp_path / "run" / "model_best_earlier1.pth", weights_only=True)
    assert earlier["metric"] == 101.0


def test_states_in_checkpoints_have_the_names_of_earlier_versions(cfg, tmp_path):
    """A hook's state is found by the name of its class."""
    states = fit(cfg, tmp_path / "run", stop=5).state_dict()
    assert states.keys() == {"iteration", "hooks", "optimizer", "grad_scaler", "left_out_steps"}
    assert states["hooks"].keys() == {"Stopwatch", "LRScheduler", "RandomStates"}
    assert states["hooks"]["Stopwatch"].keys() == {"seconds"}
    [process] = states["hooks"]["RandomStates"]["processes"]
    assert process.keys() == {"random", "buffers"}


def test_a_model_that_cannot_train_on_one_image_says_so(cfg, tmp_path):
    cfg.MODEL.NAME = "vgg8"
    with pytest.raises(UserError, match="vgg8 normalises over the batch and cannot train on one"):
        fit(cfg, tmp_path / "run")


def test_every_test_reaches_the_metrics(cfg, tmp_path):
    fit(cfg, tmp_path / "run")  # epochs of 5 steps
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").open()]
    assert len([row for row in rows if "top1" in row]) == 2


@pytest.mark.parametrize("methods", [(), ("KD",), ("DKD",), ("MLD",), ("TTM",), ("CTKD",)])
def test_a_step_that_is_not_logged_never_waits_for_the_device(cfg, methods):
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, bool(methods)
    trainer = ClassifierTrainer(cfg)
    # Its loader works on the CPU.
    trainer.read_period, trainer.data_loader = 100, [next(iter(trainer.data_loader))] * 2
    trainer.describe = lambda _: []
    with EventStorage():
        for trainer.iter in range(2):  # the first prepares the teacher
            with synchronisations() as seen:
                trainer.run_step()
    assert not seen
