import argparse
import json
import logging
import os
import socket
from pathlib import Path

import pytest
import torch
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from torch import distributed

import classification.run as classification_run
from eakd_det.engine import detection_run, launch
from eakd_det.utils import nvidia
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def arguments():
    return argparse.Namespace(config_file="", wandb=None, eval_only=False, resume=False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(("device", "hidden"), [("cpu", True), ("cuda", False)])
def test_processes_on_the_cpu_see_no_gpu(monkeypatch, two_gpus, device, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    seen = []
    note = lambda *_, **__: seen.append(os.environ["CUDA_VISIBLE_DEVICES"])  # noqa: E731
    monkeypatch.setattr(launch, "launch_processes", note)
    args = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch.launch(print, args, lambda args: device)
    assert seen == ["" if hidden else "0,1"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.fixture
def torchrun(monkeypatch, tmp_path):
    """The environment of a process of torchrun, the only one."""
    numbers = {"LOCAL_RANK": 0, "RANK": 0, "LOCAL_WORLD_SIZE": 1, "WORLD_SIZE": 1}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        numbers["MASTER_PORT"] = free.getsockname()[1]
    for name, value in {**numbers, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(comm, "_LOCAL_PROCESS_GROUP", None)
    yield
    comm.create_local_process_group.cache_clear()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def test_torchrun_on_the_cpu_of_a_machine_with_gpus(monkeypatch, two_gpus, torchrun):
    monkeypatch.setattr(torch.cuda, "set_device", lambda rank: pytest.fail("a GPU is taken"))
    seen = []
    launch.launch(lambda args: seen.append(distributed.get_backend()), None, lambda args: "cpu")
    assert seen == ["gloo"]


def test_torchrun_on_gpus(monkeypatch, two_gpus, torchrun):
    seen = []
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    init = distributed.init_process_group

    def note_backend(backend, **options):
        seen.append(backend)
        init("gloo", **options)  # there is no GPU here

    monkeypatch.setattr(launch.distributed, "init_process_group", note_backend)
    launch.launch(lambda args: None, None, lambda args: "cuda")
    assert seen == ["nccl", 0]


def test_too_few_gpus_are_told(two_gpus):
    args = argparse.Namespace(num_gpus=4, num_machines=1, machine_rank=0, dist_url="auto")
    with pytest.raises(SystemExit, match="error: 4 processes take a GPU each and this machine has"):
        launch.launch(print, args, lambda args: "cuda")


def test_the_device_is_that_of_the_config(cli_cfg, tmp_path, two_gpus):
    """The device is that of a YAML or Python config, or of the command line."""
    path = tmp_path / "run.yaml"
    path.write_text(cli_cfg.dump())
    lazy = ROOT / "configs" / "COCO-Detection" / "lazy" / "student_r18.py"
    digits = ROOT / "configs" / "Digits" / "KD.yaml"
    detectors, classifiers = detection_run.device_of, classification_run.device_of
    for device_of, config, options, device in [
        (detectors, path, [], "cpu"),
        (detectors, path, ["MODEL.DEVICE", "cuda"], "cuda"),
        (detectors, lazy, ["train.device=cpu"], "cpu"),
        (detectors, lazy, [], "cuda"),
        (classifiers, digits, ["MODEL.DEVICE", "cpu"], "cpu"),
        (classifiers, digits, [], "cuda"),
    ]:
        args = argparse.Namespace(config_file=str(config), opts=options)
        assert device_of(args) == device


def test_the_time_limit_is_that_of_the_config(cli_cfg, tmp_path, monkeypatch, torchrun):
    (tmp_path / "run.yaml").write_text(cli_cfg.dump())
    lazy = ROOT / "configs" / "COCO-Detection" / "lazy" / "student_r18.py"
    digits = ROOT / "configs" / "Digits" / "KD.yaml"
    seen = []
    init = distributed.init_process_group

    def note_limit(backend, *, timeout, **options):
        seen.append(timeout.total_seconds())
        init(backend, timeout=timeout, **options)

    monkeypatch.setattr(launch.distributed, "init_process_group", note_limit)
    for run, config, options, seconds in [
        (detection_run, tmp_path / "run.yaml", [], 1800),
        (detection_run, tmp_path / "run.yaml", ["DDP_TIMEOUT", "60"], 60),
        (detection_run, lazy, [], 1800),
        (detection_run, lazy, ["train.ddp_timeout=60"], 60),
        (classification_run, digits, ["DDP_TIMEOUT", "60"], 60),
    ]:
        args = argparse.Namespace(config_file=str(config), opts=options)
        launch.launch(lambda _: None, args, lambda _: "cpu", timeout_of=run.timeout_of)
        assert seen.pop() == seconds
    args.opts = ["DDP_TIMEOUT", "0"]
    with pytest.raises(SystemExit, match="error: DDP_TIMEOUT .* not 0"):
        launch.launch(lambda _: None, args, lambda _: "cpu", timeout_of=run.timeout_of)


def test_the_time_limit_is_passed_to_the_processes_of_num_gpus(monkeypatch):
    seen = []
    note = lambda *_, timeout, **__: seen.append(timeout.total_seconds())  # noqa: E731
    monkeypatch.setattr(launch, "launch_processes", note)
    args = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch.launch(print, args, lambda _: "cpu", timeout_of=lambda _: 60)
    assert seen == [60]


def test_the_log_is_plain_and_the_terminal_shows_no_config(stock_cfg, arguments, tmp_path, capsys):
    stock_cfg.OUTPUT_DIR = str(tmp_path)
    arguments.config_file = str(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("VERSION: 2\n")
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    logging.getLogger("fvcore.x").warning("\x1b[34mbackbone.weight\x1b[0m is missing")
    text, shown = (tmp_path / "log.txt").read_text(), capsys.readouterr().out
    assert "\x1b" not in text
    assert "fvcore.x WARNING: backbone.weight is missing" in text
    assert "Running with full config:" in text and "POSITIVE_FRACTION" in text
    assert "Contents of args.config_file" in text
    assert "backbone.weight" in shown and "Full config saved to" in shown
    assert "POSITIVE_FRACTION" not in shown and "Contents of args" not in shown


def test_what_trains_notes_its_command_and_an_evaluation_leaves_it(stock_cfg, arguments, tmp_path):
    stock_cfg.OUTPUT_DIR = str(tmp_path)
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    before = (tmp_path / "run.json").read_text()
    assert json.loads(before)["starts"][0]["processes"] == 1
    arguments.eval_only = True
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    assert (tmp_path / "run.json").read_text() == before


def test_a_mistake_of_the_user_s_leaves_no_traceback_in_the_log(stock_cfg, arguments, tmp_path):
    class Trainer(TrainerBase):
        def run_step(self):
            raise UserError("a.png cannot be read.")

    stock_cfg.OUTPUT_DIR = str(tmp_path)
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    with pytest.raises(UserError):
        Trainer().train(0, 1)
    text = (tmp_path / "log.txt").read_text()
    assert "a.png cannot be read." in text
    assert "Traceback" not in text


def test_what_comes_before_the_processes(arguments):
    arguments.num_gpus, arguments.num_machines = 1, 1
    arguments.machine_rank, arguments.dist_url = 0, "auto"
    calls = []

    def start(before):
        launch.launch(lambda _: calls.append("main"), arguments, lambda _: "cpu", before=before)

    start(lambda _: calls.append("first"))
    assert calls == ["first", "main"]

    def refuse(_):
        raise UserError("a.json is no JSON.")

    with pytest.raises(SystemExit, match="error: a.json is no JSON."):
        start(refuse)
    assert calls == ["first", "main"]


@pytest.mark.parametrize("smi", ["", "Driver Version: 470.1  CUDA Version: 11.4"])
def test_the_log_says_that_a_run_is_on_the_cpu(stock_cfg, arguments, tmp_path, monkeypatch, smi):
    """With a real nvidia-smi of a driver that is too old, or with none."""
    if smi:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\necho '{smi}'\necho 'GPU 0: NVIDIA T4 (UUID: 1)'\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(nvidia, "PROC", tmp_path)
    nvidia.find_gpu.cache_clear()
    stock_cfg.OUTPUT_DIR, arguments.wandb = str(tmp_path / "run"), None
    stock_cfg.MODEL.DEVICE = "cuda"
    stock_cfg.freeze()
    launch.set_up(stock_cfg, arguments, str(tmp_path / "run"))
    nvidia.find_gpu.cache_clear()
    text = (tmp_path / "run" / "log.txt").read_text()
    assert ("WARNING: Running on the CPU: torch" if smi else "INFO: Running on the CPU: no") in text
    assert "DEVICE: cpu" in (tmp_path / "run" / "config.yaml").read_text()
