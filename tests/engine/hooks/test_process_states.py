"""Resumed runs of detectors equal uninterrupted ones."""

import pytest
import torch

from ..runs import train


@pytest.mark.parametrize(
    ("methods", "half", "amp"),
    [
        (("DKD", "REVIEWKD"), 4, False),
        (("DKD", "REVIEWKD"), 1, True),
        (("CWD", "PKD", "MGD", "FGD"), 1, False),  # the masks of MGD are drawn as before
    ],
)
def test_resumed_run_equals_a_straight_one(run_cfg, tmp_path, methods, half, amp):
    """With adapters, accumulation, and an evaluation on the way or the AMP scaler."""
    cfg = run_cfg
    cfg.DISTILL.METHODS = methods
    cfg.SOLVER.MAX_ITER = 2 * half
    cfg.SOLVER.STEPS = (2 * half - 1,)
    cfg.SOLVER.CHECKPOINT_PERIOD = cfg.TEST.EVAL_PERIOD = half
    cfg.SOLVER.AMP.ENABLED = amp
    cfg.SOLVER.ACCUMULATE = 2
    if half == 1:
        cfg.DATASETS.TEST, cfg.INPUT.MIN_SIZE_TRAIN = (), (48,)  # float16 is slow on a CPU
    straight = train(cfg, tmp_path / "straight", [2 * half])
    resumed = train(cfg, tmp_path / "resumed", [half, 2 * half])
    assert resumed.start_iter == half
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert any(key.startswith(f"adapters.{methods[1]}.") for key in ours)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for name in ("optimizer", "grad_scaler"):
        torch.testing.assert_close(
            *(t._trainer.state_dict()[name] for t in (straight, resumed)), rtol=0, atol=0
        )


def test_the_seed_of_the_data_outlives_every_resume(run_cfg, tmp_path):
    """The run's first one, whichever numbers a later process would draw."""
    run_cfg.DATASETS.TEST = ()
    run_cfg.SOLVER.CHECKPOINT_PERIOD = 1
    seeds = []
    for stop in (1, 2, 3):
        run_cfg.SEED = stop
        train(run_cfg, tmp_path / "run", [stop], resume=True)
        saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
        [process] = saved["trainer"]["hooks"]["ProcessStates"]["processes"]
        seeds.append(process["sampler_seed"])
    assert seeds[0] is not None
    assert len(set(seeds)) == 1


def test_a_retinanet_keeps_its_running_normalizer(run_cfg, retina_cfg, tmp_path):
    cfg = retina_cfg
    cfg.DATASETS.TEST = ()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 4, 2
    straight = train(cfg, tmp_path / "straight", [4])
    resumed = train(cfg, tmp_path / "resumed", [2, 4])
    assert straight.model.loss_normalizer == resumed.model.loss_normalizer
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
