from pathlib import Path

import pytest

from eakd_det.utils.errors import UserError
from llm import checkpoints
from llm.checkpoints import (
    checkpoint_to_resume,
    newest_checkpoint,
    remove_incomplete,
    saved_processes,
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


def test_the_newest_complete_checkpoint(tmp_path):
    assert newest_checkpoint(str(tmp_path)) is None
    make(tmp_path / "checkpoint-9", states=("rng_state_0.pth", "rng_state_1.pth"))
    newest = make(tmp_path / "checkpoint-10")
    make(tmp_path / "checkpoint-12", states=())  # weights alone, of SAVE_ONLY_MODEL
    make(tmp_path / "checkpoint-14", state=None)
    make(tmp_path / "checkpoint-16", state='{"global_')
    make(tmp_path / "checkpoint-best")
    (tmp_path / "checkpoint-20").touch()
    assert newest_checkpoint(str(tmp_path)) == newest
    assert saved_processes(newest) == 1 and saved_processes(tmp_path / "checkpoint-9") == 2
    remove_incomplete(str(tmp_path))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"checkpoint-{name}" for name in ("9", "10", "12", "20", "best")}


def test_a_checkpoint_that_another_machine_lacks(cfg, monkeypatch):
    make(Path(cfg.OUTPUT_DIR, "checkpoint-2"))
    args = training_arguments(cfg)
    assert checkpoint_to_resume(args).endswith("checkpoint-2")

    def gather(value):  # of this process and one without the folder
        return [value, ("other", True) if isinstance(value, tuple) else None]

    monkeypatch.setattr(checkpoints.comm, "all_gather", gather)
    with pytest.raises(UserError, match=r"checkpoint-2 of .* is missing on other: copy it there"):
        checkpoint_to_resume(args)
