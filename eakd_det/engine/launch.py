"""Launch of the processes of a run, by Detectron2 or by torchrun."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import TrainerBase, default_setup
from detectron2.engine import launch as launch_processes
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import distributed
from torch.multiprocessing import ProcessExitedException

from eakd_det.utils.device import available_device, log_cpu, use_available_device
from eakd_det.utils.errors import UserError
from eakd_det.utils.logger import set_up_loggers

from .process_group import TIMEOUT, connect_torchrun, limit_exchanges, time_limit
from .restart import check_shared, log_restart, record_launch
from .run_record import record_start
from .signals import signals_for_children
from .warning_list import WarningList
from .weights_and_biases import start_wandb

OURS = ("eakd_det", "classification")  # packages whose messages are logged


def launch(
    main: Callable[[argparse.Namespace], object],
    args: argparse.Namespace,
    device_of: Callable[[argparse.Namespace], str],
    *,
    timeout_of: Callable[[argparse.Namespace], float] = lambda args: TIMEOUT,
    before: Callable[[argparse.Namespace], object] | None = None,
) -> None:
    """Call `main(args)` in every process of the run; a UserError exits with its message.

    Args:
        main: of an importable module, or of the script that is run.
        args: of Detectron2's argument parser. Under torchrun, torchrun's processes are used.
        device_of: returns the device of the config that args name. Processes on the CPU do not
            see the GPUs of their machine.
        timeout_of: returns the seconds that the processes wait for one another.
        before: called before the processes of the run are connected, and so without that time
            limit; under torchrun in each of them.
    """
    if before is not None:
        _guarded(before, args)
    try:
        if "LOCAL_RANK" in os.environ:
            _guarded(_join_torchrun, args, device_of, timeout_of)
            _guarded(main, args)
            distributed.destroy_process_group()
        else:
            _guarded(_start_processes, args, main, device_of, timeout_of)
    except ProcessExitedException as error:
        if error.signal_name:
            raise  # killed from outside, for example for its memory: the error names the signal
        sys.exit(error.exit_code)


def set_up(cfg: CfgNode | DictConfig, args: argparse.Namespace, output_dir: str) -> None:
    """Call Detectron2's default_setup, and log our packages' messages as Detectron2's are logged.

    The device "cuda" becomes "cpu" if torch can use no GPU; the log says why. A run that trains
    records its command in run.json, and `launch` repeats its warnings at its end; a restart by
    torchrun is logged. A second run in the same process starts its own log. With args.wandb,
    TensorBoard's data are also sent to that project of Weights & Biases.

    Raises:
        UserError: args.wandb is set and wandb is not installed, or a training's folder is not seen
            by all machines.
    """
    _WARNINGS.log_again()  # of an earlier run, in its own log
    for name in ("fvcore", "detectron2", *OURS):
        logging.getLogger(name).handlers.clear()
    setup_logger.cache_clear()
    logging.getLogger(TrainerBase.__module__).addFilter(_WITHOUT_TRACEBACK)
    set_up_loggers(output_dir, comm.get_rank())
    for name in OURS:
        ours = setup_logger(output_dir, distributed_rank=comm.get_rank(), name=name)
        if comm.is_main_process() and not args.eval_only:
            ours.addHandler(_WARNINGS)
    device = _set_device(cfg)
    if not args.eval_only:
        check_shared(output_dir)
    default_setup(cfg, args)
    if not args.eval_only:
        log_restart(output_dir)
        record_start(output_dir, device, resume=args.resume, accumulate=_micro_batches(cfg))
        if args.resume:  # else when an earlier run has been removed: see `record_launch`
            record_launch(output_dir)
    if args.wandb and comm.is_main_process():
        start_wandb(args.wandb, output_dir, is_training=not args.eval_only)


def _micro_batches(cfg: CfgNode | DictConfig) -> int:
    if isinstance(cfg, CfgNode):
        return cfg.SOLVER.get("ACCUMULATE", 1)
    return cfg.train.get("accumulate", 1)


def _set_device(cfg: CfgNode | DictConfig) -> str:
    """Set the config's device to an available one, and return it."""
    log_cpu.cache_clear()  # an earlier run has its own log
    if isinstance(cfg, CfgNode):
        use_available_device(cfg)
        return cfg.MODEL.DEVICE
    cfg.train.device = available_device(cfg.train.device)
    return cfg.train.device


class _WithoutTraceback(logging.Filter):
    """Reduces a trainer's record of a UserError to its message, without the traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], UserError):
            record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
        return True


_WITHOUT_TRACEBACK = _WithoutTraceback()
_WARNINGS = WarningList()


def _join_torchrun(
    args: argparse.Namespace,
    device_of: Callable[[argparse.Namespace], str],
    timeout_of: Callable[[argparse.Namespace], float],
) -> None:
    is_on_gpu = _is_on_gpu(device_of(args), int(os.environ["LOCAL_WORLD_SIZE"]))
    connect_torchrun(is_on_gpu=is_on_gpu, timeout=time_limit(timeout_of(args)))


def _start_processes(
    args: argparse.Namespace,
    main: Callable[[argparse.Namespace], object],
    device_of: Callable[[argparse.Namespace], str],
    timeout_of: Callable[[argparse.Namespace], float],
) -> None:
    """Start the processes with Detectron2's launch, which gives each a GPU that it sees."""
    timeout = time_limit(timeout_of(args))
    several = args.num_gpus * args.num_machines > 1
    is_on_gpu = several and _is_on_gpu(device_of(args), args.num_gpus)
    hides_gpus = several and not is_on_gpu and torch.cuda.is_available()
    forwarding = signals_for_children() if several else contextlib.nullcontext()
    with forwarding, _without_gpus() if hides_gpus else contextlib.nullcontext():
        launch_processes(
            _guarded,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(_run_limited, main, args, timeout),
            timeout=timeout,
        )


def _run_limited(
    main: Callable[[argparse.Namespace], object], args: argparse.Namespace, timeout: timedelta
) -> None:
    limit_exchanges(timeout)
    main(args)


def _is_on_gpu(device: str, processes: int) -> bool:
    """Return True if the processes of this machine use a GPU each.

    Raises:
        UserError: there are too few GPUs.
    """
    if not (device.startswith("cuda") and torch.cuda.is_available()):
        return False
    if processes > torch.cuda.device_count():
        raise UserError(
            f"{processes} processes take a GPU each and this machine has "
            f"{torch.cuda.device_count()}: start fewer, or set MODEL.DEVICE cpu (in a Python "
            "config train.device=cpu)."
        )
    return True


@contextlib.contextmanager
def _without_gpus() -> Iterator[None]:
    """Hide the GPUs from processes that start in the with-block."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    os.environ[name] = ""
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def repeated_warnings() -> Iterator[None]:
    """Repeat the warnings of a run of the with-block at its end."""
    try:
        yield
    finally:
        _WARNINGS.log_again()


def _guarded(function: Callable[..., object], *args: Any) -> None:
    try:
        with repeated_warnings():
            function(*args)
    except UserError as error:
        sys.exit(f"error: {error}")
