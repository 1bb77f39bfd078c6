import pytest
from detectron2.config import get_cfg
from detectron2.solver import build_lr_scheduler
from torch import nn, optim

from eakd_det.config.choices import as_options
from eakd_det.config.merge import load_config, merge_options
from eakd_det.engine.schedule import MOST_EVALUATIONS, epoch_choices
from eakd_det.model_zoo import get_config_file

FILE = get_config_file("COCO-Detection/EA-DKD-R18-R101.yaml")  # 0.01 for 8 images


def schedule(epochs, images, *options):
    """The config with the schedule, and key -> reason."""
    cfg, options = load_config(FILE, list(options)), list(options)
    of_file = load_config(FILE)
    found = epoch_choices(cfg, of_file, set(options[::2]), epochs=epochs, images=images)
    merge_options(cfg, [*as_options(found), *options])
    return cfg, {choice.key: choice.why for choice in found}


def test_epochs_of_coco_s_size():
    cfg, why = schedule(24, 1200)
    solver = cfg.SOLVER
    assert (solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS) == (3600, (2400, 3200), 360)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, cfg.TEST.EVAL_PERIOD) == (8, 0.01, 150)
    assert why["TEST.EVAL_PERIOD"] == "once an epoch"
    assert why["SOLVER.MAX_ITER"] == "24 epochs of 1200 images, 8 a step"
    solver = schedule(12, 118000)[0].SOLVER
    assert (solver.MAX_ITER, solver.WARMUP_ITERS) == (177000, 1000)


@pytest.mark.parametrize("epochs", [1, 5, 24, 25, 100])
@pytest.mark.parametrize("images", [1, 7, 8, 100, 1201])
def test_every_image_is_seen_and_evaluations_are_few(epochs, images):
    cfg, _ = schedule(epochs, images)
    max_iter, period = cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD
    assert 0 <= max_iter * 8 - epochs * images < 8
    # As EvalHook evaluates: each period, and once after the training.
    assert len({i for i in range(1, max_iter) if i % period == 0}) + 1 <= MOST_EVALUATIONS
    assert all(0 < step < max_iter for step in cfg.SOLVER.STEPS)


@pytest.mark.parametrize("epochs", [1, 3])
def test_detectron2_takes_the_shortest(epochs):
    cfg, _ = schedule(epochs, 5)
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), cfg.SOLVER.BASE_LR)
    build_lr_scheduler(cfg, optimizer)
    assert optimizer.param_groups[0]["lr"] == cfg.SOLVER.BASE_LR


def test_the_learning_rate_follows_the_batch():
    cfg, why = schedule(3, 100, "SOLVER.IMS_PER_BATCH", "2")
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (0.0025, 150)
    expected = "linear rule: the config's 0.01 for 8 images, times 2/8"
    assert why["SOLVER.BASE_LR"] == expected
    assert schedule(3, 100, "SOLVER.IMS_PER_BATCH", "6")[0].SOLVER.BASE_LR == 0.0075


def test_pairs_have_the_last_word():
    """Steps, warm-up and evaluations follow a MAX_ITER that is given."""
    pairs = ["SOLVER.IMS_PER_BATCH", "4", "SOLVER.BASE_LR", "0.3", "SOLVER.MAX_ITER", "900"]
    cfg, _ = schedule(3, 100, *pairs)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (0.3, 900)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS) == ((600, 800), 90)
    assert cfg.TEST.EVAL_PERIOD == 38
    cfg, _ = schedule(3, 100, "SOLVER.STEPS", "(5,)", "TEST.EVAL_PERIOD", "7")
    assert (cfg.SOLVER.STEPS, cfg.TEST.EVAL_PERIOD) == ((5,), 7)


def test_other_schedules_and_no_validation_data():
    cosine = ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"]
    cfg, why = schedule(3, 100, *cosine, "DATASETS.TEST", "()")
    assert "SOLVER.STEPS" not in why
    assert cfg.TEST.EVAL_PERIOD == get_cfg().TEST.EVAL_PERIOD == 0
    assert why["TEST.EVAL_PERIOD"] == "there are no validation data"
