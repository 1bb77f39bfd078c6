"""DistillationTrainer: one step of gradient descent at rate 1 gives the gradient."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, TrainerCallback

from eakd_det.engine.signals import SIGNALS
from eakd_det.losses import entropy_weight, forward_kl, skewed_forward_kl
from eakd_det.utils.errors import UserError
from llm import training
from llm.data import PadRight, encode, read_instructions
from llm.head_states import capture, check_head
from llm.prompts import short_prompt
from llm.trainer import DistillationTrainer
from llm.training import fit, prepare
from llm.vocabulary import train_tokenizer

from .conftest import LINES, make_gpt2, save, write_jsonl


def gradients(folder, before):
    """Return the gradients of a step with learning rate 1: weights before it minus after it."""
    after = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return {name: start - after[name] for name, start in before.items()}


def start_of(cfg):
    return AutoModelForCausalLM.from_pretrained(cfg.MODEL.WEIGHTS).state_dict()


def step(cfg, **options):
    """Return the gradients of a run with other options."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR += "-" + "-".join(map(str, options.values())).replace("/", "")
    for key, value in options.items():
        node, _, leaf = key.rpartition("__")
        target = cfg
        for name in node.split("__") if node else ():
            target = target[name]
        target[leaf] = value
    fit(cfg)
    return gradients(cfg.OUTPUT_DIR, start_of(cfg))


def assert_same(actual, expected, tolerance=1e-5):
    assert max(x.abs().max() for x in expected.values()) > 1e-2
    for name, gradient in expected.items():
        assert_close(actual[name], gradient, atol=tolerance, rtol=tolerance)


def by_hand(cfg, tokenizer, divergence, ce_weight, is_weighted):
    """Compute the gradients of the loss from the logits of all rows at once."""
    student = AutoModelForCausalLM.from_pretrained(cfg.MODEL.WEIGHTS)
    teacher = AutoModelForCausalLM.from_pretrained(cfg.TEACHER.WEIGHTS).eval()
    rows = encode(read_instructions(cfg.DATASET.TRAIN), tokenizer, short_prompt, 64)
    batch = PadRight(tokenizer.pad_token_id)(rows)
    labels = batch.pop("labels")[:, 1:]
    vocab_size = len(tokenizer)
    logits = student(**batch).logits[:, :-1, :vocab_size]
    with torch.no_grad():
        teacher_logits = teacher(**batch).logits[:, :-1, :vocab_size]
    weight = entropy_weight(logits, teacher_logits) if is_weighted else None
    loss = divergence(logits, teacher_logits, labels, weight=weight)
    loss = loss + ce_weight * nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    loss.backward()
    result = {name: p.grad for name, p in student.named_parameters()}
    return {**result, "lm_head.weight": student.lm_head.weight.grad}


@pytest.mark.parametrize("chunk_size", [0, 3])
@pytest.mark.parametrize(
    ("method", "divergence", "ce_weight", "is_weighted"),
    [("KD", forward_kl, 1.0, True), ("SKLD", skewed_forward_kl, 0.0, False)],
)
def test_gradients(cfg, tokenizer, chunk_size, method, divergence, ce_weight, is_weighted):
    got = step(
        cfg,
        DISTILL__METHODS=(method,),
        DISTILL__CE_WEIGHT=ce_weight,
        DISTILL__EA__ENABLED=is_weighted,
        DISTILL__CHUNK_SIZE=chunk_size,
    )
    expected = by_hand(cfg, tokenizer, divergence, ce_weight, is_weighted)
    assert_same(got, expected, 1e-4 if chunk_size else 1e-5)


@pytest.mark.parametrize(
    "option",
    [
        {"DISTILL__EA__ENABLED": False},
        {"DISTILL__EA__TEMPERATURE": 1.0},
        {"DISTILL__EA__BOUND": 100.0},
        {"DISTILL__EA__MODE": "teacher"},
        {"DISTILL__EA__MODE": "matched"},
        {"DISTILL__EA__MODE": "normalized"},
        {"DISTILL__CE_WEIGHT": 0.5},
        {"DISTILL__KD__WEIGHT": 0.5},
        {"DISTILL__METHODS": ("RKL",)},
        {"DISTILL__METHODS": ("KD", "JSD")},
        {"DATASET__TRAIN_SIZE": 2},
    ],
    ids=str,
)
def test_every_option_changes_the_gradients(cfg, option):
    plain, other = step(cfg), step(cfg, **option)
    assert any((plain[name] - other[name]).abs().max() > 1e-4 for name in plain)


@pytest.fixture
def two_rows(cfg, tmp_path):
    """Config of two rows with different numbers of answer tokens."""
    cfg.DATASET.TRAIN = write_jsonl(tmp_path / "two.jsonl", LINES[1:3])
    cfg.TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE = 2
    return cfg


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_a_batch_equals_micro_batches(two_rows, chunk_size):
    two_rows.DISTILL.CHUNK_SIZE = chunk_size
    micro_batches = step(
        two_rows,
        TRAINING__PER_DEVICE_TRAIN_BATCH_SIZE=1,
        TRAINING__GRADIENT_ACCUMULATION_STEPS=2,
    )
    assert_same(micro_batches, step(two_rows))


@pytest.mark.parametrize("mode", ["matched", "normalized"])
def test_weights_use_the_mean_of_the_step(cfg, mode):
    """Micro-batches use the mean of the step, although their own means differ."""
    cfg.DISTILL.EA.MODE = mode
    micro_batches = step(
        cfg,
        TRAINING__PER_DEVICE_TRAIN_BATCH_SIZE=1,
        TRAINING__GRADIENT_ACCUMULATION_STEPS=4,
    )
    assert_same(micro_batches, step(cfg))


def test_the_mean_uses_the_dropout_of_the_step(cfg, tokenizer, tmp_path, monkeypatch):
    """The mean weight, computed before the step, is that of the step's own weights."""
    student = make_gpt2(tokenizer, 2)
    student.config.resid_pdrop = 0.5
    cfg.MODEL.WEIGHTS = save(student, tokenizer, tmp_path / "dropout")
    cfg.TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE, cfg.TRAINING.GRADIENT_ACCUMULATION_STEPS = 1, 2
    cfg.TRAINING.MAX_STEPS, cfg.TRAINING.LEARNING_RATE = 2, 0.0
    means, check = [], DistillationTrainer.check_step

    def recorded(self):
        means.append(self.objective.sums["weight"] / self.objective.sums["tokens"])
        check(self)

    monkeypatch.setattr(DistillationTrainer, "check_step", recorded)
    step(cfg, DISTILL__EA__MODE="full")
    for mode in ("matched", "normalized"):
        step(cfg, DISTILL__EA__MODE=mode)
    assert_close(means[2:], 2 * means[:2])
    assert means[0] != means[1]


FITS = """
import sys
from llm.config import load_config
from llm.training import fit
for path in sys.argv[1:]:
    fit(load_config(path))
"""


def test_a_batch_equals_two_processes(two_rows, call_code, tmp_path):
    """Plain, in chunks and by the mean weight, one after the other in one process group."""
    modes = ["full", "full", "matched", "normalized"]
    expected = {mode: step(two_rows, DISTILL__EA__MODE=mode) for mode in modes[1:]}
    two_rows.TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE = 1
    paths, folders = [], []
    for chunk_size, mode in zip((0, 3, 0, 0), modes, strict=True):
        cfg = two_rows.clone()
        cfg.DISTILL.CHUNK_SIZE, cfg.DISTILL.EA.MODE = chunk_size, mode
        cfg.OUTPUT_DIR = str(tmp_path / f"chunks{chunk_size}-{mode}")
        paths.append(tmp_path / f"chunks{chunk_size}-{mode}.yaml")
        paths[-1].write_text(cfg.dump())
        folders.append(cfg.OUTPUT_DIR)
    code, out, err = call_code(FITS, *paths, ranks=2)
    assert code == 0, out + err
    for folder, mode in zip(folders, modes, strict=True):
        assert_same(gradients(folder, start_of(two_rows)), expected[mode])


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_training_builds_no_cache_for_generation(cfg, monkeypatch, chunk_size):
    """Neither in the student nor in the teacher; the saved student generates with one."""
    cfg.DISTILL.CHUNK_SIZE = chunk_size
    loss, caches = DistillationTrainer._loss, []

    def recorded(self, outputs, *args, **kwargs):
        caches.extend([outputs.past_key_values, self._teacher_output.past_key_values])
        return loss(self, outputs, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "_loss", recorded)
    fit(cfg)
    assert caches == [None, None]
    student = AutoModelForCausalLM.from_pretrained(cfg.OUTPUT_DIR)
    tokens = torch.tensor([[1, 2]])
    generated = student.generate(tokens, max_new_tokens=2, return_dict_in_generate=True)
    assert generated.past_key_values.get_seq_length() == 3


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 fails on a CPU")
def test_compiled_chunks(cfg, monkeypatch):
    """COMPILE acts on a GPU alone; here the Trainer is told to compile."""
    cfg.DISTILL.CHUNK_SIZE, cfg.DISTILL.METHODS = 3, ("KD", "SKLD")
    expected = step(cfg)

    def compiling(**options):
        assert not options.pop("compiled")
        return DistillationTrainer(**options, compiled=True)

    monkeypatch.setattr("llm.building.DistillationTrainer", compiling)
    cfg.OUTPUT_DIR += "-compiled"
    assert_same(step(cfg), expected)
    cfg.OUTPUT_DIR += "-bfloat16"
    half = step(cfg, TRAINING__BF16=True)
    for name, gradient in expected.items():
        assert (half[name] - gradient).abs().max() < 0.1 * gradient.abs().max()


def test_mixed_precision(cfg):
    """The whole and the chunked loss agree to bfloat16's precision, and differ from float32."""
    exact = step(cfg)
    plain = step(cfg, TRAINING__BF16=True)
    chunked = step(cfg, TRAINING__BF16=True, DISTILL__CHUNK_SIZE=3)
    for name, gradient in exact.items():
        scale = gradient.abs().max()
        assert 0 < (plain[name] - gradient).abs().max() < 0.1 * scale
        assert (chunked[name] - plain[name]).abs().max() < 0.1 * scale


def test_resume_equals_one_run(cfg):
    """A resumed run gives the model of an uninterrupted run, and run.json has both starts."""
    cfg.TRAINING.LEARNING_RATE, cfg.TRAINING.OPTIM = 1e-2, "adamw_torch"
    whole = step(cfg, TRAINING__MAX_STEPS=3)
    cfg.TRAINING.SAVE_STRATEGY, cfg.TRAINING.SAVE_STEPS = "steps", 2
    cfg.TRAINING.MAX_STEPS = 2
    fit(cfg)
    cfg.TRAINING.MAX_STEPS = 3
    fit(cfg, resume=True)
    assert_same(gradients(cfg.OUTPUT_DIR, start_of(cfg)), whole, 1e-6)
    record = json.loads(Path(cfg.OUTPUT_DIR, "run.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(cfg.OUTPUT_DIR)
    assert len(record["starts"]) == 2 and record["parameters"] == model.num_parameters()


def test_resume_does_not_replace_a_run_that_has_ended(cfg):
    fit(cfg)
    model = Path(cfg.OUTPUT_DIR, "model.safetensors")
    before = model.stat().st_mtime_ns
    with pytest.raises(UserError, match="has ended and has no checkpoint to continue from"):
        fit(cfg, resume=True)
    assert model.stat().st_mtime_ns == before


class Terminate(TrainerCallback):
    """Sends SIGTERM in the second step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_terminated_run_resumes(cfg, monkeypatch):
    """It saves a checkpoint although SAVE_STRATEGY is no, and continues within the epoch."""
    cfg.TRAINING.LEARNING_RATE, cfg.TRAINING.OPTIM = 1e-2, "adamw_torch"
    cfg.TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE = 1
    whole = step(cfg, TRAINING__MAX_STEPS=3)
    cfg.TRAINING.MAX_STEPS = 3
    before = {number: signal.getsignal(number) for number in SIGNALS}
    build = training.build_trainer

    def with_a_signal(*args):
        trainer = build(*args)
        trainer.add_callback(Terminate())
        return trainer

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr(training, "build_trainer", with_a_signal)
        fit(cfg, resume=True)
    for number, handler in before.items():
        signal.signal(number, handler)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not training.has_ended(cfg)
    (Path(cfg.OUTPUT_DIR) / "checkpoint-9").mkdir()  # of a process that was killed while it saved
    fit(cfg, resume=True)
    assert_same(gradients(cfg.OUTPUT_DIR, start_of(cfg)), whole, 1e-6)


def test_a_resumed_run_uses_the_settings_of_its_config(cfg, caplog):
    cfg.TRAINING.LEARNING_RATE, cfg.TRAINING.OPTIM = 1e-2, "adamw_torch"
    cfg.TRAINING.LR_SCHEDULER_TYPE = "linear"
    cfg.TRAINING.SAVE_STRATEGY, cfg.TRAINING.SAVE_STEPS = "steps", 2
    cfg.TRAINING.MAX_STEPS = 2
    fit(cfg)
    cfg.TRAINING.MAX_STEPS = 4
    cfg.TRAINING.LEARNING_RATE, cfg.TRAINING.WEIGHT_DECAY = 4e-3, 0.1
    caplog.set_level("INFO", "llm")
    fit(cfg, resume=True)
    changes = "LEARNING_RATE 0.01 -> 0.004, WEIGHT_DECAY 0.0 -> 0.1 from iteration 2 on"
    assert f"--resume: {changes}" in caplog.text
    state = torch.load(Path(cfg.OUTPUT_DIR) / "checkpoint-4" / "optimizer.pt", weights_only=True)
    decay, other = state["param_groups"]
    assert [g["initial_lr"] for g in (decay, other)] == [4e-3, 4e-3]
    assert (decay["weight_decay"], other["weight_decay"]) == (0.1, 0.0)


def test_teacher_stays_out_of_the_checkpoint(cfg, teacher_path):
    before = AutoModelForCausalLM.from_pretrained(teacher_path).state_dict()
    fit(cfg)
    after = AutoModelForCausalLM.from_pretrained(teacher_path).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    student = AutoModelForCausalLM.from_pretrained(cfg.OUTPUT_DIR)
    assert student.config.n_embd == 16
    assert student.state_dict().keys() == start_of(cfg).keys()


def test_no_method_is_stock_training(cfg, tokenizer):
    got = step(cfg, DISTILL__METHODS=(), DISTILL__EA__ENABLED=False)
    zero = by_hand(cfg, tokenizer, lambda student, *_, weight: 0 * student.sum(), 1.0, False)
    assert_same(got, zero)


def test_evaluation_of_held_out_data(cfg):
    cfg.DATASET.VALID, cfg.TRAINING.EVAL_STRATEGY = cfg.DATASET.TRAIN, "steps"
    cfg.TRAINING.EVAL_STEPS, cfg.DISTILL.CHUNK_SIZE = 1, 3
    assert "train_loss" in fit(cfg)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"TRAINING__LABEL_SMOOTHING_FACTOR": 0.1}, "LABEL_SMOOTHING_FACTOR must be 0"),
        ({"TEACHER__WEIGHTS": "/nowhere"}, "TEACHER.WEIGHTS: '/nowhere' cannot be loaded"),
        ({"MODEL__WEIGHTS": ""}, "needs one of MODEL.WEIGHTS, MODEL.CONFIG_FILE and"),
        ({"TOKENIZER__VOCAB_SIZE": 300, "TOKENIZER__NAME": "x"}, "not both"),
    ],
)
def test_refused(cfg, options, message):
    with pytest.raises(ValueError, match=message):
        step(cfg, **options)


@pytest.fixture
def own_runs(cfg, tmp_path):
    """Config whose teacher and student start from runs of their own."""
    for name, node in [("teacher", cfg.TEACHER), ("start", cfg.MODEL)]:
        own = cfg.clone()
        own.MODEL.WEIGHTS, own.DISTILL.METHODS = node.WEIGHTS, ()
        own.OUTPUT_DIR = str(tmp_path / f"own-{name}")
        (tmp_path / f"{name}.yaml").write_text(own.dump())
        node.WEIGHTS, node.CONFIG_FILE = "", str(tmp_path / f"{name}.yaml")
    return cfg


def test_needed_runs_are_trained_first(own_runs, tmp_path):
    prepare(own_runs)
    folders = {name: tmp_path / f"own-{name}" for name in ("teacher", "start")}
    before = {name: (f / "model.safetensors").stat().st_mtime_ns for name, f in folders.items()}
    prepare(own_runs)  # again: nothing is left to do
    for name, folder in folders.items():
        assert (folder / "model.safetensors").stat().st_mtime_ns == before[name]
    by_path = own_runs.clone()
    for name, node in [("teacher", by_path.TEACHER), ("start", by_path.MODEL)]:
        node.WEIGHTS, node.CONFIG_FILE = str(folders[name]), ""
    by_path.OUTPUT_DIR += "-by-path"
    fit(own_runs)
    fit(by_path)
    start = AutoModelForCausalLM.from_pretrained(folders["start"]).state_dict()
    expected = gradients(by_path.OUTPUT_DIR, start)
    assert_same(gradients(own_runs.OUTPUT_DIR, start), expected, 0)


def test_an_invalid_run_does_not_train_its_needed_runs(own_runs, tmp_path):
    own_runs.DATASET.TRAIN = "nowhere.jsonl"
    with pytest.raises(ValueError, match="There is no file 'nowhere.jsonl'"):
        prepare(own_runs)
    assert not list(tmp_path.glob("own-*"))


def test_a_teacher_with_another_tokenizer_is_refused(cfg, tmp_path):
    other = train_tokenizer(["quite other words of quite another text"] * 3, 270)
    cfg.TEACHER.WEIGHTS = save(make_gpt2(other, 3), other, tmp_path / "other")
    with pytest.raises(ValueError, match="different tokenizers"):
        fit(cfg)


def test_a_head_with_capped_logits_is_refused():
    head, states = nn.Linear(4, 6), torch.randn(2, 5, 4)
    with capture(head) as captured:
        logits = head(states)
    assert captured.states is states
    assert logits.shape == (2, 1, 6)
    check_head(head, states, logits, "student")
    with pytest.raises(ValueError, match="logits of the student are not"):
        check_head(head, states, 30 * torch.tanh(logits / 30), "student")
    assert head(states).shape == (2, 5, 6)
    logits = head(states.fill_(torch.nan))[:, :1]
    check_head(head, states, logits, "student")  # NaN is reported elsewhere


def test_texts_longer_than_the_positions_of_a_model_are_refused(cfg, tokenizer, tmp_path):
    line = {"instruction": "Say it.", "output": "sun " * 80}
    cfg.DATASET.TRAIN = write_jsonl(tmp_path / "long.jsonl", [*LINES, line])
    with pytest.raises(UserError, match=r"MODEL has 64 positions.*DATASET.MAX_LENGTH to 64 or"):
        fit(cfg)
    cfg.DATASET.MAX_LENGTH = 64
    fit(cfg)
    cfg.DATASET.MAX_LENGTH = 65
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.ARCHITECTURE = CfgNode({"model_type": "gpt2", "n_positions": 128, "n_embd": 24})
    cfg.MODEL.ARCHITECTURE.n_layer, cfg.MODEL.ARCHITECTURE.n_head = 1, 2
    with pytest.raises(UserError, match="TEACHER has 64 positions, and an example has 65 tokens"):
        fit(cfg, overwrite=True)
    assert training.has_ended(cfg)
