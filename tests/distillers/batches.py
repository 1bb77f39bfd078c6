"""Random batches of four classes."""

import torch

from eakd_det.distillers import DistillationBatch, LogitPair


def make_pair(seed=0, **options):
    """A pair of 7 samples in the first and the third of 3 images, with background."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 7, 4, generator=generator)
    settings = {
        "labels": torch.arange(7) % 4,
        "images": lambda: torch.tensor([0, 0, 0, 2, 2, 2, 2]),
        "normalizer": 7.0,
        "has_background": True,
    }
    logits = {"student_logits": student, "teacher_logits": teacher}
    return LogitPair(**{**logits, **settings, **options})


def make_batch(*pairs, **options):
    """A batch with maps of 5 channels on one level."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 3, 5, 4, 4, generator=generator)
    return DistillationBatch(list(pairs), [maps[0]], [maps[1]], **options)
