"""Schedule of a training from its number of epochs: --epochs."""

import math
from collections.abc import Collection

from detectron2.config import CfgNode

from eakd_det.config.choices import Choice

MOST_EVALUATIONS = 24  # of a training


def epoch_choices(
    cfg: CfgNode, from_file: CfgNode, given: Collection[str], *, epochs: int, images: int
) -> list[Choice]:
    """Return learning rate, iterations, steps, warm-up and evaluations of some epochs.

    The learning rate follows the batch by the linear rule (Goyal et al., arXiv 1706.02677), from
    the config file's. It falls at 2/3 and 8/9 of the iterations, as in Detectron2's 1x and 3x
    schedules.

    Args:
        cfg: config of the run.
        from_file: config before the KEY VALUE pairs of the command line.
        given: keys of these pairs, whose values are taken as they are.
        epochs: passes over the training images.
        images: number of the images that are trained on.
    """
    batch, solver = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER
    an_epoch = math.ceil(images / batch)
    max_iter = math.ceil(epochs * images / batch)
    passes = f"{epochs} epoch{'s' * (epochs > 1)} of {images} images"
    choices = [
        Choice("SOLVER.IMS_PER_BATCH", batch, "images of a step, of the config"),
        _learning_rate(batch, from_file.SOLVER),
        Choice("SOLVER.MAX_ITER", max_iter, f"{passes}, {batch} a step"),
    ]
    max_iter = solver.MAX_ITER if "SOLVER.MAX_ITER" in given else max_iter
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        falls = tuple(sorted({max_iter * 2 // 3, max_iter * 8 // 9} - {0}))
        choices.append(Choice("SOLVER.STEPS", falls, "2/3 and 8/9 of the iterations"))
    warmup = min(from_file.SOLVER.WARMUP_ITERS, max_iter // 10)
    why = (
        "of the config" if warmup == from_file.SOLVER.WARMUP_ITERS else "a tenth of the iterations"
    )
    choices.append(Choice("SOLVER.WARMUP_ITERS", warmup, why))
    return [*choices, _evaluations(cfg, an_epoch, max_iter)]


def _learning_rate(batch: int, reference: CfgNode) -> Choice:
    before, images = reference.BASE_LR, reference.IMS_PER_BATCH
    if batch == images:
        return Choice("SOLVER.BASE_LR", before, f"of the config, for {images} images a step")
    rate = float(f"{before * batch / images:.6g}")
    why = f"linear rule: the config's {before} for {images} images, times {batch}/{images}"
    return Choice("SOLVER.BASE_LR", rate, why)


def _evaluations(cfg: CfgNode, an_epoch: int, max_iter: int) -> Choice:
    key = "TEST.EVAL_PERIOD"
    if not cfg.DATASETS.TEST:
        return Choice(key, 0, "there are no validation data")
    period = max(an_epoch, math.ceil(max_iter / MOST_EVALUATIONS))
    why = "once an epoch" if period == an_epoch else f"{MOST_EVALUATIONS} times"
    return Choice(key, period, why)
