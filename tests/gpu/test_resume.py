"""The random numbers of a GPU go on in a resumed run."""

import pytest
import torch
from detectron2.engine import HookBase
from torch.nn import functional as F

from tests.engine.runs import train


class Noise(HookBase):
    """Dropout on the student's finest map; draws a number before each step."""

    def __init__(self):
        self.drawn = {}

    def before_train(self):
        self.trainer.model.backbone.register_forward_hook(
            lambda module, args, maps: {**maps, "p3": F.dropout(maps["p3"], 0.5)}
        )

    def before_step(self):
        self.drawn[self.trainer.iter] = torch.rand((), device=self.trainer.model.device).item()


@pytest.fixture
def deterministic():
    """Choose deterministic operations where there are some; a RetinaNet with KD needs no others."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def test_a_resumed_run_equals_a_straight_one(
    run_cfg, retina_cfg, device, tmp_path, deterministic, full_float32
):
    """Numbers that are drawn there are equal, and so is what dropout has made of the weights."""
    cfg = retina_cfg
    cfg.MODEL.DEVICE, cfg.DISTILL.METHODS = str(device), ("KD",)
    cfg.DATASETS.TEST, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = (), 4, 2
    hooks = [Noise(), Noise()]
    straight = train(cfg, tmp_path / "straight", [4], hook=hooks[0])
    resumed = train(cfg, tmp_path / "resumed", [2, 4], hook=hooks[1])
    assert resumed.start_iter == 2
    assert hooks[0].drawn == hooks[1].drawn and len(set(hooks[0].drawn.values())) == 4
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-7)
    state = torch.load(tmp_path / "straight" / "model_final.pth", weights_only=True)
    [process] = state["trainer"]["hooks"]["ProcessStates"]["processes"]
    assert (process["random"]["cuda"] is not None) == (device.type == "cuda")
