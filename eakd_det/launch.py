"""Starting the processes of a run: Detectron2's launch, or torchrun's."""

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.engine import launch as launch_processes
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import distributed
from torch.multiprocessing import ProcessExitedException

from .errors import UserError
from .logs import set_up_loggers
from .run_record import record_start

OURS = ("eakd_det", "classification")  # packages that log


def launch(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Call `main(args)` in every process of the run; a mistake of the user ends it in words.

    Args:
        main: of an importable module, or of the script that is run.
        args: of Detectron2's argument parser. Under torchrun its processes are taken.
    """
    try:
        if "LOCAL_RANK" in os.environ:
            _join_torchrun()
            _guarded(main, args)
            distributed.destroy_process_group()
        else:
            launch_processes(
                _guarded,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(main, args),
            )
    except ProcessExitedException as error:
        if error.signal_name:
            raise  # killed from outside, for example for its memory: torch says by which signal
        sys.exit(error.exit_code)


def set_up(cfg: CfgNode | DictConfig, args: argparse.Namespace, output_dir: str) -> None:
    """Detectron2's default_setup; our packages' messages go where Detectron2's go.

    A run that trains notes its command in run.json. A second run of the process has the log to
    itself. With args.wandb, what TensorBoard gets also goes to that project of Weights & Biases.

    Raises:
        UserError: it is asked for and not installed.
    """
    for name in ("fvcore", "detectron2", *OURS):
        logging.getLogger(name).handlers.clear()
    setup_logger.cache_clear()
    set_up_loggers(output_dir, comm.get_rank())
    default_setup(cfg, args)
    for name in OURS:
        setup_logger(output_dir, distributed_rank=comm.get_rank(), name=name)
    if not args.eval_only:
        device = cfg.MODEL.DEVICE if isinstance(cfg, CfgNode) else cfg.train.device
        record_start(output_dir, device, resume=args.resume)
    if args.wandb and comm.is_main_process():
        if importlib.util.find_spec("wandb") is None:
            raise UserError("--wandb: the package wandb is not installed; pip install wandb.")
        import wandb

        wandb.init(project=args.wandb, dir=output_dir, sync_tensorboard=True)


def _join_torchrun() -> None:
    has_gpu = torch.cuda.is_available()
    distributed.init_process_group("nccl" if has_gpu else "gloo", timeout=DEFAULT_TIMEOUT)
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    if has_gpu:
        torch.cuda.set_device(comm.get_local_rank())


def _guarded(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    try:
        main(args)
    except UserError as error:
        sys.exit(f"error: {error}")
