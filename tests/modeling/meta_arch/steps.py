"""Small steps of distilled detectors."""

import torch
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer


def flat(options):
    return [x for pair in options.items() for x in pair]


def train(cfg, batch, steps=3):
    """The first and the last losses of some small steps."""
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = True, 0.01
    return first_and_last(cfg, batch, steps, seeds=(0, 1))


def first_and_last(cfg, batch, steps, seeds=(1,)):
    """The first and the last losses of some steps, which sample with the seeds in turn."""
    torch.manual_seed(0)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    history = []
    for step in range(steps):
        torch.manual_seed(seeds[step % len(seeds)])  # the same samples in the first and the last
        losses = model(batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history[0], history[-1]


def seen_batch(model, batch, square):
    """The batch of the objective for a teacher that pads to a square."""
    model.teacher.model.backbone._square_pad = square
    seen = []
    model.objective.losses = lambda batch, _: seen.append(batch) or {}
    torch.manual_seed(1)
    model(batch)
    return seen[0]
