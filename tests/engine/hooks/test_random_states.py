import torch

from eakd_det.engine.hooks.random_states import (
    preserved_random_state,
    random_state,
    set_random_state,
)

from ..runs import draw, train


def test_random_state_comes_back(tmp_path):
    state = random_state()
    torch.save(state, tmp_path / "state.pth")
    drawn = draw()
    assert draw() != drawn
    set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert draw() == drawn
    set_random_state(state)
    with preserved_random_state():
        draw()
    assert draw() == drawn


def test_another_number_of_processes_is_warned_about(run_cfg, tmp_path, caplog):
    run_cfg.DATASETS.TEST = ()
    run_cfg.SOLVER.CHECKPOINT_PERIOD = 2
    train(run_cfg, tmp_path / "run", [2])
    path = tmp_path / "run" / "model_0000001.pth"
    saved = torch.load(path, weights_only=True)
    saved["trainer"]["hooks"]["ProcessStates"]["processes"] *= 2
    torch.save(saved, path)
    (tmp_path / "run" / "last_checkpoint").write_text(path.name)
    train(run_cfg, tmp_path / "run", [3], resume=True)
    assert "The checkpoint is of 2 processes and this run has 1" in caplog.text
