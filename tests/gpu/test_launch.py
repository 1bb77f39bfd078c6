"""Runs of one process with NCCL, and of two with gloo on one GPU."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from eakd_det.engine.launch import launch
from tests.engine.test_launch import torchrun  # noqa: F401  (a fixture)

from .detectors import build


@pytest.mark.usefixtures("torchrun")
def test_nccl_with_one_process(retina_cfg, batch, storage, cuda, full_float32):
    """The gradients of DDP are those of the model."""
    retina_cfg.MODEL.DEVICE = "cuda"
    found = []

    def main(args):
        total = torch.ones(3, device="cuda")
        distributed.all_reduce(total)
        found.append((distributed.get_backend(), total.tolist(), torch.cuda.current_device()))
        models = build(retina_cfg), DistributedDataParallel(build(retina_cfg), device_ids=[0])
        for model in models:
            sum(model(batch).values()).backward()
        plain, wrapped = models[0], models[1].module
        for one, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
            if one.requires_grad:
                assert (other.grad - one.grad).norm() <= 1e-2 * one.grad.norm() + 1e-3

    launch(main, None, lambda args: "cuda")
    assert found == [("nccl", [1.0, 1.0, 1.0], 0)]
    assert not distributed.is_initialized()


def test_gloo_with_two_processes_on_one_device(cli_cfg, tool_environment, device, tmp_path):
    """Each is a machine of its own, so that both take the first GPU; their weights stay equal."""
    cli_cfg.MODEL.DEVICE, cli_cfg.SOLVER.MAX_ITER = str(device), 2
    cli_cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    (tmp_path / "run.yaml").write_text(cli_cfg.dump())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    names |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "2"}
    command = [sys.executable, str(Path(__file__).parent / "worker.py"), str(tmp_path / "run.yaml")]
    options = {"cwd": tmp_path, "text": True, "stdout": subprocess.PIPE}
    processes = [
        subprocess.Popen(
            command,
            env={**tool_environment(), **names, "RANK": rank, "GROUP_RANK": rank},
            stderr=subprocess.STDOUT,
            **options,
        )
        for rank in "01"
    ]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    folder = Path(cli_cfg.OUTPUT_DIR)
    states = [torch.load(folder / f"worker_rank{r}.pth", weights_only=True) for r in (0, 1)]
    for state in states:
        assert state["backend"] == "gloo" and state["device"] == device.type
        assert all(torch.equal(x, states[0]["weights"][n]) for n, x in state["weights"].items())
    assert any(not torch.equal(x, states[0]["before"][n]) for n, x in states[0]["weights"].items())
    assert all(x.isfinite().all() for x in states[0]["weights"].values())
