import torch

from eakd_det.benchmark.pooling import CPU_POOLING, GPU_POOLING, cpu_pooling, gpu_pooling
from eakd_det.modeling.poolers import POOLER_BACKENDS

TINY = (1, 64, 96, 4, 8, 0)


def test_the_backends_pool():
    variants = cpu_pooling(*TINY)
    assert tuple(variants) == POOLER_BACKENDS
    for run in variants.values():
        run()


def test_layouts_and_dtypes_pool():
    variants = gpu_pooling(*TINY, device=torch.device("cpu"))
    assert next(iter(variants)) == "torchvision" and len(variants) == 3
    for run in variants.values():
        run()


def test_sizes_have_the_arguments():
    assert all(len(x) == len(TINY) for x in (*CPU_POOLING.values(), *GPU_POOLING.values()))
