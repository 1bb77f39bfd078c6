"""Tests on a GPU, which are skipped without CUDA.

With `--device cpu` those that need neither streams nor memory of a GPU run on the CPU instead, to
check the tests themselves.
"""

from pathlib import Path

import pytest
import torch


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session", autouse=True)
def device(request):
    """The torch.device that is tested: the GPU, or that of --device."""
    chosen = torch.device(request.config.getoption("--device"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use; --device cpu checks the tests on the CPU")
    return chosen


@pytest.fixture(scope="session")
def cuda(device):
    """The GPU, for tests of its streams, memory, graphs and NCCL; skipped with --device cpu."""
    if device.type != "cuda":
        pytest.skip("only a GPU has this")
    return device


@pytest.fixture
def full_float32():
    """Compute float32 products in float32, not TF32, and convolutions alike in each run."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    cudnn.deterministic = True
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
