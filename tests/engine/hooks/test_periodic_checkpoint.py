from types import SimpleNamespace

from torch import nn

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.engine.hooks.periodic_checkpoint import PeriodicCheckpoint


def _run(folder, start, stop):
    """The checkpoints that are left by a run from one iteration to another, and the newest."""
    checkpointer = SafeCheckpointer(nn.Linear(1, 1), str(folder))
    hook = PeriodicCheckpoint(checkpointer, period=2, max_to_keep=1)
    hook.trainer = SimpleNamespace(start_iter=start, iter=start, max_iter=100)
    hook.before_train()
    for hook.trainer.iter in range(start, stop):
        hook.after_step()
    return sorted(x.name for x in folder.glob("*.pth")), (folder / "last_checkpoint").read_text()


def test_the_newest_is_kept(tmp_path):
    assert _run(tmp_path, 0, 6) == (["model_0000005.pth"], "model_0000005.pth")
    assert _run(tmp_path, 6, 9) == (["model_0000007.pth"], "model_0000007.pth")


def test_a_file_that_a_killed_process_did_not_name_is_written_again_and_kept(tmp_path):
    _run(tmp_path, 0, 6)
    (tmp_path / "model_0000007.pth").touch()
    assert _run(tmp_path, 6, 8) == (["model_0000007.pth"], "model_0000007.pth")
