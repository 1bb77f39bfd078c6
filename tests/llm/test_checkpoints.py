from pathlib import Path

import pytest

from eakd_det.utils.errors import UserError
from llm import checkpoints
from llm.checkpoints import (
    checkpoint_to_resume,
    resumable_steps,
    saved_processes,
    set_aside_incomplete,
)
from llm.config import training_arguments


def make(folder, state='{"global_step": 2}', states=("rng_state.pth",)):
    """Make a folder as Trainer does; without `state` it is incomplete."""
    folder.mkdir(parents=True)
    for name in states:
        (folder / name).touch()
    if state is not None:
        (folder / "trainer_state.json").write_text(state)
    return str(folder)


def test_complete_and_incomplete_checkpoints(tmp_path):
    assert resumable_steps(str(tmp_path)) == set()
    make(tmp_path / "checkpoint-8", state=None)  # a user keeps its weights alone
    make(tmp_path / "checkpoint-9", states=("rng_state_0.pth", "rng_state_1.pth"))
    newest = make(tmp_path / "checkpoint-10")
    make(tmp_path / "checkpoint-12", states=())  # weights alone, of SAVE_ONLY_MODEL
    make(tmp_path / "checkpoint-14", state=None)
    make(tmp_path / "checkpoint-16", state='{"global_')
    make(tmp_path / "checkpoint-best")
    (tmp_path / "checkpoint-20").touch()
    assert resumable_steps(str(tmp_path)) == {9, 10}
    assert saved_processes(newest) == 1 and saved_processes(tmp_path / "checkpoint-9") == 2
    (tmp_path / "incomplete-checkpoint-14_earlier1").mkdir()
    set_aside_incomplete(str(tmp_path), 10)
    left = {path.name for path in tmp_path.iterdir()}
    kept = {f"checkpoint-{name}" for name in ("8", "9", "10", "12", "20", "best")}
    aside = {
        f"incomplete-checkpoint-{name}" for name in ("14_earlier1", "14_earlier2", "16_earlier1")
    }
    assert left == kept | aside


@pytest.fixture
def machines(cfg, monkeypatch):
    """A function that returns the checkpoint to resume, for the steps that another machine has."""
    for step in (2, 4):
        make(Path(cfg.OUTPUT_DIR, f"checkpoint-{step}"))

    def resume(other):
        monkeypatch.setattr(checkpoints.comm, "all_gather", lambda own: [own, ("other", other)])
        return checkpoint_to_resume(training_arguments(cfg))

    return resume


def test_a_checkpoint_that_another_machine_has_not_completed(cfg, machines):
    cfg.TRAINING.SAVE_ON_EACH_NODE = True
    with pytest.raises(UserError, match=r"checkpoint-4 is missing on other, and no checkpoint is"):
        machines(set())
    assert resumable_steps(cfg.OUTPUT_DIR) == {2, 4}
    assert machines({2}) == f"{cfg.OUTPUT_DIR}/checkpoint-2"
    assert resumable_steps(cfg.OUTPUT_DIR) == {2}, "its next checkpoint-4 starts empty"


def test_machines_that_share_a_folder_use_the_checkpoint_of_the_first_process(cfg, machines):
    assert machines(set()) == f"{cfg.OUTPUT_DIR}/checkpoint-4"
