import logging

import pytest
import torch

from eakd_det.utils import device
from eakd_det.utils.device import available_device, log_cpu, use_available_device
from eakd_det.utils.nvidia import Gpu, TorchBuild

T4 = Gpu("NVIDIA T4", "535.104.05", 12)


@pytest.fixture(autouse=True)
def no_gpu_of_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    log_cpu.cache_clear()
    yield
    log_cpu.cache_clear()


@pytest.fixture
def found(monkeypatch):
    """A function that sets the GPU and the torch that are found."""

    def found(gpu, build="2.14.1+cu130", cuda=13):
        monkeypatch.setattr(device, "find_gpu", lambda: gpu)
        monkeypatch.setattr(device, "torch_build", lambda: TorchBuild(build, cuda))

    return found


def test_a_fallback_is_logged_once(found, caplog):
    found(None)
    with caplog.at_level(logging.INFO):
        assert [available_device(), available_device("cuda:1"), available_device("cpu")] == [
            "cpu"
        ] * 3
    assert caplog.messages == ["Running on the CPU: no GPU that torch can use was found"]
    assert caplog.records[0].levelno == logging.INFO


def test_where_information_is_not_shown_a_fallback_is_a_warning(found, caplog):
    found(None)
    available_device()
    assert caplog.records[0].levelno == logging.WARNING


def test_the_cpu_as_configured_is_no_fallback(found, caplog):
    found(T4)
    assert available_device("cpu") == "cpu" and caplog.messages == []


def test_a_gpu_that_torch_cannot_use_is_a_warning(found, caplog):
    found(T4)
    with caplog.at_level(logging.INFO):
        available_device()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "torch 2.14.1+cu130 needs CUDA 13" in record.getMessage()


def test_hidden_gpus(found, caplog, monkeypatch):
    found(T4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with caplog.at_level(logging.INFO):
        available_device()
    assert caplog.messages == ["Running on the CPU: CUDA_VISIBLE_DEVICES is ''"]


def test_an_unknown_obstacle(found, caplog, monkeypatch):
    found(T4, "2.10.0+cu128", 12)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    available_device()
    assert (
        "cannot use NVIDIA T4 with driver 535.104.05 (CUDA 12) and CUDA_VISIBLE_DEVICES=7"
        in (caplog.messages[0])
    )


def test_the_key_of_a_config(stock_cfg, found, monkeypatch):
    found(None)
    stock_cfg.MODEL.DEVICE = "cuda"
    stock_cfg.freeze()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    use_available_device(stock_cfg)
    assert stock_cfg.MODEL.DEVICE == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    use_available_device(stock_cfg)
    assert stock_cfg.MODEL.DEVICE == "cpu" and stock_cfg.is_frozen()
