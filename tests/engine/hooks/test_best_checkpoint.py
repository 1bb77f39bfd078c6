import torch

from eakd_det.engine.hooks.best_checkpoint import BestCheckpoint

from ..runs import train


def test_the_best_is_remembered(run_cfg, tmp_path):
    """Also if the run was cut off after the evaluation, and its checkpoint is of before."""
    run_cfg.TEST.EVAL_PERIOD = run_cfg.SOLVER.CHECKPOINT_PERIOD = 2
    folder = tmp_path / "run"
    train(run_cfg, folder, [2])
    saved = torch.load(folder / "model_best.pth", weights_only=True)
    assert saved.keys() == {"model", "class_names", "iteration", "metric"}
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    saved["metric"] = 101.0
    torch.save(saved, folder / "model_best.pth")
    resumed = train(run_cfg, folder, [4], resume=True)
    [best] = [h for h in resumed._hooks if isinstance(h, BestCheckpoint)]
    assert best.best_metric == 101.0
    kept = torch.load(folder / "model_best.pth", weights_only=True)
    assert kept["metric"] == 101.0
    for number in (1, 2):  # a new run in its folder
        train(run_cfg, folder, [2])
        assert torch.load(folder / "model_best.pth", weights_only=True)["metric"] < 101.0
        assert (folder / f"model_best_earlier{number}.pth").exists()
    earlier = torch.load(folder / "model_best_earlier1.pth", weights_only=True)
    assert earlier["metric"] == 101.0


def test_the_best_on_the_first_of_several_datasets(run_cfg, tmp_path):
    run_cfg.TEST.EVAL_PERIOD = 1
    run_cfg.DATASETS.TEST = (run_cfg.DATASETS.TEST[0], run_cfg.DATASETS.TRAIN[0])
    trainer = train(run_cfg, tmp_path / "run", [1])
    [best] = [h for h in trainer._hooks if isinstance(h, BestCheckpoint)]
    assert best.best_metric == trainer.storage.latest()[f"{run_cfg.DATASETS.TEST[0]}/bbox/AP"][0]
