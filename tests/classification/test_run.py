import json
from argparse import Namespace

import pytest
import torch

from classification.config import load_config
from classification.engine import ClassifierTrainer
from classification.run import _keep_step, main
from eakd_det.utils.errors import UserError

TEXT = "MODEL: {NAME: resnet8, DEVICE: cpu}\nDATASET: {NAME: digits, TRAIN_SIZE: 16}\n"
TEXT += "SOLVER: {EPOCHS: 3, BATCH_SIZE: 8}\n"


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains a student and first its teacher, in a process of torchrun, which may die.

    The arguments are the folder of the agent's logs, the steps until the process dies, and flags.
    """
    (tmp_path / "teacher.yaml").write_text(f"{TEXT}OUTPUT_DIR: {tmp_path}/teacher\n")
    own = f"TEACHER: {{CONFIG_FILE: {tmp_path}/teacher.yaml}}\nDISTILL: {{METHODS: [KD]}}\n"
    (tmp_path / "student.yaml").write_text(f"{TEXT}OUTPUT_DIR: {tmp_path}/student\n{own}")
    run_step, taken = ClassifierTrainer.run_step, []

    def train(agent, steps=100, **flags):
        def run_or_die(trainer):
            if len(taken) == steps:
                raise OSError("killed")
            taken.append((trainer.cfg.OUTPUT_DIR, trainer.iter))
            run_step(trainer)

        taken.clear()
        monkeypatch.setattr(ClassifierTrainer, "run_step", run_or_die)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", f"/tmp/{agent}/x/attempt_0/0/error.json")
        defaults = {"config_file": str(tmp_path / "student.yaml"), "opts": []}
        defaults |= dict.fromkeys(("resume", "overwrite", "eval_only", "teacher_only"), False)
        main(Namespace(**{**defaults, "wandb": None, **flags}))

    def steps_of(name):
        return [iteration for folder, iteration in taken if folder == str(tmp_path / name)]

    train.steps_of = steps_of
    return train


def test_a_restart_continues_teacher_and_student(train, tmp_path):
    with pytest.raises(OSError, match="killed"):
        train("a", steps=3)  # in the teacher's second epoch
    with pytest.raises(OSError, match="killed"):
        train("a", steps=6)  # in the student's second
    assert train.steps_of("teacher") == [2, 3, 4, 5] and train.steps_of("student") == [0, 1]
    with pytest.raises(UserError, match=r"student holds a run: --resume continues it"):
        train("b")
    train("a")
    assert not train.steps_of("teacher") and train.steps_of("student") == [2, 3, 4, 5]
    weights = torch.load(tmp_path / "student" / "model_final.pth", weights_only=True)["model"]
    with pytest.raises(OSError, match="killed"):
        train("c", steps=3, overwrite=True)  # starts anew, once
    train("c", overwrite=True)
    assert train.steps_of("student") == [2, 3, 4, 5]
    again = torch.load(tmp_path / "student" / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(weights[key], again[key]) for key in weights)


@pytest.mark.parametrize(("processes", "before", "accumulate"), [(2, 1, 2), (3, 2, 6), (1, 1, 1)])
def test_micro_batches_keep_their_size(processes, before, accumulate, tmp_path):
    start = {"processes": processes, "accumulate": before}
    (tmp_path / "run.json").write_text(json.dumps({"starts": [start]}))
    (tmp_path / "run.yaml").write_text(f"{TEXT}OUTPUT_DIR: {tmp_path}\n")
    cfg = load_config(str(tmp_path / "run.yaml"))
    note = _keep_step(cfg, Namespace(resume=True))
    assert cfg.SOLVER.ACCUMULATE == accumulate
    assert bool(note) == (processes > 1)
