import itertools
import logging
import os
import random
import signal

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import HookBase

from eakd_det.engine.best_checkpoint import BestCheckpoint
from eakd_det.engine.preemption import SIGNALS
from eakd_det.engine.resume import (
    preserved_random_state,
    random_state,
    set_random_state,
    skip_batches,
)
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.utils.errors import UserError


def _draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_random_state_comes_back(tmp_path):
    state = random_state()
    torch.save(state, tmp_path / "state.pth")
    drawn = _draw()
    assert _draw() != drawn
    set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert _draw() == drawn
    set_random_state(state)
    with preserved_random_state():
        _draw()
    assert _draw() == drawn


# 13 images; a third is wide, and they come in another order in every epoch.
DICTS = [
    {"image_id": i, "width": 20 if i % 3 else 10, "height": 15, "file_name": f"{i}.png"}
    for i in range(13)
]


def _loader(grouped, workers=0, seed=3, images=DICTS, mapper=dict):
    return build_detection_train_loader(
        images,
        mapper=mapper,
        sampler=TrainingSampler(len(DICTS), seed=seed),
        total_batch_size=4,
        aspect_ratio_grouping=grouped,
        num_workers=workers,
    )


def _ids(loader, first, last):
    return [[x["image_id"] for x in batch] for batch in itertools.islice(loader, first, last)]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("skipped", [0, 1, 5, 12])
def test_skipped_batches(grouped, workers, skipped):
    expected = _ids(_loader(grouped), skipped, skipped + 6)
    loader = _loader(grouped, workers)
    skip_batches(loader, skipped)
    with preserved_random_state():
        before = _draw()
    assert _ids(loader, 0, 6) == expected
    assert _draw() == before, "the run's own random numbers are where they were"


@pytest.fixture
def log(caplog, monkeypatch):
    """caplog with this package's messages, also after a test that has set up its logging."""
    monkeypatch.setattr(logging.getLogger("eakd_det"), "propagate", True)
    caplog.set_level(logging.INFO, "eakd_det")
    return caplog


def _train(cfg, output_dir, stops, *, resume=False, hook=None):
    """Train to each of the iterations, in a new trainer each; the last one's student."""
    cfg.OUTPUT_DIR = str(output_dir)
    output_dir.mkdir(exist_ok=True)
    for stop in stops:
        # What another process would start from.
        torch.manual_seed(cfg.SEED)
        np.random.seed(cfg.SEED)
        random.seed(cfg.SEED)
        trainer = DistillTrainer(cfg)
        trainer.resume_or_load(resume=resume)
        trainer.max_iter = stop
        trainer.register_hooks([hook])
        trainer.train()
        resume = True
    return trainer


@pytest.mark.parametrize(("half", "amp"), [(4, False), (1, True)])
def test_resumed_run_equals_a_straight_one(run_cfg, tmp_path, half, amp):
    """With the fusion modules, accumulation, and an evaluation on the way or the AMP scaler."""
    cfg = run_cfg
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    cfg.SOLVER.MAX_ITER = 2 * half
    cfg.SOLVER.STEPS = (2 * half - 1,)
    cfg.SOLVER.CHECKPOINT_PERIOD = cfg.TEST.EVAL_PERIOD = half
    cfg.SOLVER.AMP.ENABLED = amp
    cfg.SOLVER.ACCUMULATE = 2
    if amp:
        cfg.DATASETS.TEST, cfg.INPUT.MIN_SIZE_TRAIN = (), (48,)  # float16 is slow on a CPU
    straight = _train(cfg, tmp_path / "straight", [2 * half])
    resumed = _train(cfg, tmp_path / "resumed", [half, 2 * half])
    assert resumed.start_iter == half
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert any(key.startswith("adapters.REVIEWKD.abfs.") for key in ours)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for name in ("optimizer", "grad_scaler"):
        torch.testing.assert_close(
            *(t._trainer.state_dict()[name] for t in (straight, resumed)), rtol=0, atol=0
        )


class _Told(HookBase):
    """The run is told to stop in the step of an iteration."""

    def __init__(self, iteration, number):
        self.iteration, self.number = iteration, number

    def before_step(self):
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def _train_until_told(cfg, output_dir, iteration, number):
    """The exit code of a run that is told to stop; its handlers of signals do not stay."""
    before = {n: signal.getsignal(n) for n in SIGNALS}
    try:  # resumed where there is nothing, it starts
        _train(cfg, output_dir, [cfg.SOLVER.MAX_ITER], resume=True, hook=_Told(iteration, number))
    except SystemExit as stopped:
        return stopped.code
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_a_run_that_is_told_to_stop_loses_nothing(run_cfg, tmp_path, log):
    """Between two checkpoints, and before the evaluation that the step would bring."""
    cfg = run_cfg
    cfg.TEST.EVAL_PERIOD = 2
    straight = _train(cfg, tmp_path / "straight", [4])
    code = _train_until_told(cfg, tmp_path / "run", 1, signal.SIGUSR1)
    assert code == 128 + signal.SIGUSR1
    assert "Stopped by SIGUSR1 at iteration 2: saved; --resume goes on" in log.text
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_0000001.pth"
    assert not (tmp_path / "run" / "model_best.pth").exists()
    resumed = _train(cfg, tmp_path / "run", [4], resume=True)
    assert resumed.start_iter == 2
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_that_is_told_to_stop_in_its_last_step(run_cfg, tmp_path):
    """The evaluation is left to the resumed one."""
    run_cfg.SOLVER.MAX_ITER = 2
    code = _train_until_told(run_cfg, tmp_path / "run", 1, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"
    assert not (tmp_path / "run" / "result.json").exists()
    _train(run_cfg, tmp_path / "run", [2], resume=True)
    assert (tmp_path / "run" / "result.json").exists()


class _Rates(HookBase):
    """Learning rate of each iteration."""

    def before_train(self):
        self.rates = []

    def before_step(self):
        self.rates.append(self.trainer._trainer.optimizer.param_groups[0]["lr"])


def test_the_optimizer_s_settings_of_a_resumed_run_are_its_config_s(run_cfg, tmp_path, log):
    cfg = run_cfg
    cfg.DATASETS.TEST, cfg.SOLVER.CHECKPOINT_PERIOD = (), 2
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.BASE_LR = 0, 0.01
    _train(cfg, tmp_path / "run", [2])
    _train(cfg, tmp_path / "run", [3], resume=True)
    assert "->" not in log.text
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.MOMENTUM = 0.004, 0.001, 0.8
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 6, (4,)
    watch = _Rates()
    trainer = _train(cfg, tmp_path / "run", [6], resume=True, hook=watch)
    assert watch.rates == pytest.approx([0.004, 0.0004, 0.0004])
    group = trainer._trainer.optimizer.param_groups[0]
    assert (group["weight_decay"], group["momentum"]) == (0.001, 0.8)
    [line] = [r.getMessage() for r in log.records if "->" in r.getMessage()]
    words = line.removeprefix("--resume: ").removesuffix(" from iteration 3 on").split(", ")
    assert sorted(words) == [
        "BASE_LR 0.01 -> 0.004",
        "MOMENTUM 0.9 -> 0.8",
        "WEIGHT_DECAY 0.0001 -> 0.001",
    ]


def test_the_seed_of_the_data_outlives_every_resume(run_cfg, tmp_path):
    """The run's first one, whichever numbers a later process would draw."""
    run_cfg.DATASETS.TEST = ()
    run_cfg.SOLVER.CHECKPOINT_PERIOD = 1
    seeds = []
    for stop in (1, 2, 3):
        run_cfg.SEED = stop
        _train(run_cfg, tmp_path / "run", [stop], resume=True)
        saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
        [process] = saved["trainer"]["hooks"]["ProcessStates"]["processes"]
        seeds.append(process["sampler_seed"])
    assert seeds[0] is not None
    assert len(set(seeds)) == 1


def test_a_stream_starts_over(caplog):
    loader = torch.utils.data.DataLoader(_Stream(), batch_size=2)
    skip_batches(loader, 3)
    assert "the training data are a stream" in caplog.text
    assert next(iter(loader)).tolist() == [0, 1]


class _Images(torch.utils.data.Dataset):
    """A dataset of the user's that maps its images itself."""

    def __len__(self):
        return len(DICTS)

    def __getitem__(self, index):
        return dict(DICTS[index])


def test_skipped_batches_of_a_dataset_without_a_mapper():
    expected = _ids(_loader(True), 5, 8)
    loader = _loader(True, images=_Images(), mapper=None)
    skip_batches(loader, 5)
    assert _ids(loader, 0, 3) == expected


class _Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(10))


@pytest.mark.parametrize("methods", [("DKD",), ("DKD", "REVIEWKD")])
def test_another_method_is_refused_in_words(run_cfg, tmp_path, methods):
    """The fusion modules of ReviewKD train too, and the optimizer knows them."""
    cfg = run_cfg
    cfg.DATASETS.TEST = ()
    cfg.DISTILL.METHODS = methods
    _train(cfg, tmp_path / "run", [1])
    cfg.DISTILL.METHODS = ("REVIEWKD",) if methods == ("DKD",) else ("DKD",)
    path = tmp_path / "run" / "model_final.pth"
    with pytest.raises(UserError, match=f"{path} cannot be resumed: .* another DISTILL.METHODS"):
        _train(cfg, tmp_path / "run", [2], resume=True)


def test_a_resumed_run_says_that_it_reads_no_other_weights(run_cfg, tmp_path, caplog):
    run_cfg.DATASETS.TEST = ()
    _train(run_cfg, tmp_path / "run", [1])
    run_cfg.MODEL.WEIGHTS = "elsewhere.pth"
    with caplog.at_level("INFO"):
        _train(run_cfg, tmp_path / "run", [2], resume=True)
    newest = tmp_path / "run" / "model_final.pth"
    assert f"--resume: {newest} goes on; elsewhere.pth, for a new run, is not read" in caplog.text


def test_checkpoints_hold_the_student_alone(run_cfg, tmp_path):
    run_cfg.DISTILL.METHODS = ("REVIEWKD",)
    run_cfg.DATASETS.TEST = ()
    trainer = _train(run_cfg, tmp_path / "run", [2])
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert not [key for key in saved["model"] if key.startswith("adapters")]
    assert saved["helpers"].keys() == trainer.model.adapters.state_dict().keys()
    assert "adapters.REVIEWKD.abfs.0.conv1.0.weight" in trainer.model.state_dict()


def test_a_retinanet_keeps_its_running_normalizer(run_cfg, retina_cfg, tmp_path):
    cfg = retina_cfg
    cfg.DATASETS.TEST = ()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 4, 2
    straight = _train(cfg, tmp_path / "straight", [4])
    resumed = _train(cfg, tmp_path / "resumed", [2, 4])
    assert straight.model.loss_normalizer == resumed.model.loss_normalizer
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_another_number_of_processes_is_warned_about(run_cfg, tmp_path, caplog):
    run_cfg.DATASETS.TEST = ()
    run_cfg.SOLVER.CHECKPOINT_PERIOD = 2
    _train(run_cfg, tmp_path / "run", [2])
    path = tmp_path / "run" / "model_0000001.pth"
    saved = torch.load(path, weights_only=True)
    saved["trainer"]["hooks"]["ProcessStates"]["processes"] *= 2
    torch.save(saved, path)
    (tmp_path / "run" / "last_checkpoint").write_text(path.name)
    _train(run_cfg, tmp_path / "run", [3], resume=True)
    assert "The checkpoint is of 2 processes and this run has 1" in caplog.text


def test_the_best_is_remembered(run_cfg, tmp_path):
    """Also if the run was cut off after the evaluation, and its checkpoint is of before."""
    run_cfg.TEST.EVAL_PERIOD = run_cfg.SOLVER.CHECKPOINT_PERIOD = 2
    folder = tmp_path / "run"
    _train(run_cfg, folder, [2])
    saved = torch.load(folder / "model_best.pth", weights_only=True)
    assert saved.keys() == {"model", "class_names", "iteration", "metric"}
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    saved["metric"] = 101.0
    torch.save(saved, folder / "model_best.pth")
    resumed = _train(run_cfg, folder, [4], resume=True)
    [best] = [h for h in resumed._hooks if isinstance(h, BestCheckpoint)]
    assert best.best_metric == 101.0
    kept = torch.load(folder / "model_best.pth", weights_only=True)
    assert kept["metric"] == 101.0
    for number in (1, 2):  # a new run in its folder
        _train(run_cfg, folder, [2])
        assert torch.load(folder / "model_best.pth", weights_only=True)["metric"] < 101.0
        assert (folder / f"model_best_earlier{number}.pth").exists()
    earlier = torch.load(folder / "model_best_earlier1.pth", weights_only=True)
    assert earlier["metric"] == 101.0


def test_the_best_on_the_first_of_several_datasets(run_cfg, tmp_path):
    run_cfg.TEST.EVAL_PERIOD = 1
    run_cfg.DATASETS.TEST = (run_cfg.DATASETS.TEST[0], run_cfg.DATASETS.TRAIN[0])
    trainer = _train(run_cfg, tmp_path / "run", [1])
    [best] = [h for h in trainer._hooks if isinstance(h, BestCheckpoint)]
    assert best.best_metric == trainer.storage.latest()[f"{run_cfg.DATASETS.TEST[0]}/bbox/AP"][0]


def test_a_sampler_without_a_seed_goes_on(tmp_path):
    """The seed that a run's sampler drew by itself is the resumed one's."""
    expected = _ids(_loader(True), 5, 10)
    loader = _loader(True, seed=8)
    skip_batches(loader, 5, seed=3)
    assert _ids(loader, 0, 5) == expected


def test_workers_draw_other_numbers_after_each_resume():
    loaders = [_loader(True) for _ in range(3)]
    for loader, seed, skipped in zip(loaders, (1, 1, 2), (5, 6, 5), strict=True):
        torch.manual_seed(seed)
        skip_batches(loader, skipped)
    assert len({loader.dataset.generator.initial_seed() for loader in loaders}) == 3


def test_images_without_sizes():
    loader = _loader(True)
    loader.dataset.dataset.dataset._dataset = [{"file_name": "a.png"}] * 13
    with pytest.raises(UserError, match=r"--resume: the record of a.png has no width and height"):
        skip_batches(loader, 1)
