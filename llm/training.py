"""Training run of a language model: its networks, data and files in OUTPUT_DIR."""

import logging
import time
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from transformers import PreTrainedTokenizerBase, set_seed

from eakd_det.engine.hooks.preemption import leave
from eakd_det.engine.restart import RESTARTED, check_shared, is_restart, record_launch
from eakd_det.engine.run_record import record_parameters, record_start
from eakd_det.engine.signals import listening
from eakd_det.utils.device import log_cpu
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically, write_json
from eakd_det.utils.lock import run_lock

from .building import build_tokenizer, build_trainer, weights_of
from .checkpoints import checkpoint_to_resume, resumable_steps
from .config import device_options, load_config, training_arguments
from .data import Instruction, read_instructions
from .instructions import path_of
from .output_files import FILES, ended_since_start, has_ended
from .restart import connect, of_first, record_batch, same_global_batch, start_flags
from .results import TRAIN_RESULT
from .stopping import OptimizerSettings, Preemption
from .tracking import keep_events_together, wandb_run
from .trainer import DistillationTrainer
from .watched import WatchedTrainer

logger = logging.getLogger(__name__)


def needed_runs(cfg: CfgNode) -> dict[str, CfgNode]:
    """Load the configs of the runs whose models this one needs: teacher and initial student.

    They are trained on this run's device and with its mixed precision (`device_options`).

    Returns:
        Config file -> config.

    Raises:
        UserError: a method needs a teacher and none is named, or a config is wrong.
    """
    files = []
    if cfg.DISTILL.METHODS and not cfg.TEACHER.WEIGHTS:
        if not cfg.TEACHER.CONFIG_FILE:
            raise UserError(
                f"DISTILL.METHODS {tuple(cfg.DISTILL.METHODS)} needs a teacher: name "
                "TEACHER.WEIGHTS (a path or hub name), or TEACHER.CONFIG_FILE of its own run."
            )
        files.append(cfg.TEACHER.CONFIG_FILE)
    if cfg.MODEL.CONFIG_FILE and not cfg.MODEL.WEIGHTS:
        files.append(cfg.MODEL.CONFIG_FILE)
    return {file: load_config(file, device_options(cfg)) for file in files}


def train(
    cfg: CfgNode, resume: bool = False, overwrite: bool = False, *, evaluates: bool = False
) -> dict[str, float] | None:
    """Train a run, and first the runs that it needs; a restart by torchrun continues all of them.

    Args:
        resume, overwrite: as of `fit`.
        evaluates: an evaluation follows, so that a resumed run that has ended is not an error.

    Returns:
        As `fit`; None if the run has ended before.

    Raises:
        UserError, SystemExit: as `fit` and `prepare`.
    """
    connect(cfg)
    has_just_ended = is_restart(cfg.OUTPUT_DIR) and ended_since_start(cfg)
    if of_first(has_just_ended or (evaluates and resume and has_ended(cfg))):
        if comm.is_main_process():
            logger.info("%s has ended: nothing is left to train", cfg.OUTPUT_DIR)
        return None
    prepare(cfg, resume, overwrite)
    return fit(cfg, resume, overwrite)


def fit(cfg: CfgNode, resume: bool = False, overwrite: bool = False) -> dict[str, float]:
    """Train a student, or without methods a model on the answers only, as stock Trainer does.

    Args:
        resume: continue from the newest checkpoint in OUTPUT_DIR. So does a restart by torchrun.
        overwrite: remove the run that OUTPUT_DIR holds and start anew.

    Returns:
        The metrics of transformers' Trainer; they are also in TRAIN_RESULT, beside the model, the
        tokenizer and config.yaml.

    Raises:
        UserError: the config, the data or the networks do not fit, or OUTPUT_DIR holds a run and
            neither flag is set.
        SystemExit: a signal stops the run; see `Preemption`.
    """
    trainer, tokenizer, checkpoint = _set_up(cfg, resume, overwrite)
    start = time.perf_counter()
    with listening() as notice, wandb_run(trainer.args):
        trainer.add_callback(OptimizerSettings())
        trainer.add_callback(Preemption(notice))
        result = trainer.train(resume_from_checkpoint=checkpoint).metrics
        number = notice.agreed_at_last()
    result["seconds"] = time.perf_counter() - start
    trainer.save_model(cfg.OUTPUT_DIR)
    trainer.save_state()
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(cfg.OUTPUT_DIR)
        with write_atomically(str(Path(cfg.OUTPUT_DIR) / "config.yaml")) as file:
            file.write(cfg.dump())
        write_json(Path(cfg.OUTPUT_DIR, TRAIN_RESULT), result)
    if number:
        leave(number, trainer.state.global_step, logger)
    return result


def _set_up(
    cfg: CfgNode, resume: bool, overwrite: bool
) -> tuple[WatchedTrainer, PreTrainedTokenizerBase, str | None]:
    """Return trainer, tokenizer and the checkpoint to resume from; the start is recorded."""
    args = training_arguments(cfg)
    if not args.save_on_each_node:
        check_shared(cfg.OUTPUT_DIR)
    asked, (resume, overwrite) = resume, start_flags(cfg.OUTPUT_DIR, resume, overwrite)
    check_folder(cfg, resume, overwrite)
    set_seed(args.seed)
    with FILES.starting(cfg.OUTPUT_DIR, overwrite=overwrite):
        examples, held_out = _read_data(cfg)
        tokenizer = build_tokenizer(cfg, examples)
        devices = args.world_size * max(args.n_gpu, 1)
        if resume:
            args = training_arguments(same_global_batch(cfg, devices))
        checkpoint = checkpoint_to_resume(args) if resume else None
        trainer = build_trainer(cfg, args, tokenizer, examples, held_out)
        accumulate = args.gradient_accumulation_steps
        record_start(cfg.OUTPUT_DIR, args.device.type, resume=resume, accumulate=accumulate)
        record_parameters(cfg.OUTPUT_DIR, trainer.model)
        record_batch(cfg, devices)
    record_launch(cfg.OUTPUT_DIR)
    keep_events_together(trainer)
    if args.process_index == 0:
        if resume:
            begin = f"from {checkpoint}" if checkpoint else "at step 0: nothing is saved"
            logger.info("--resume: the run goes on %s." if asked else RESTARTED, begin)
        _log_start(cfg, trainer)
    return trainer, tokenizer, checkpoint


def _log_start(cfg: CfgNode, trainer: WatchedTrainer) -> None:
    if trainer.args.device.type == "cpu" and not trainer.args.use_cpu:
        log_cpu()
    logger.info("Training %s on %s", cfg.OUTPUT_DIR, trainer.args.device)
    if isinstance(trainer, DistillationTrainer):
        trainer.objective.distillation.log_settings()


def check_folder(cfg: CfgNode, resume: bool, overwrite: bool) -> None:
    """Check that a training would not replace a run unasked.

    Raises:
        UserError: OUTPUT_DIR holds a run and neither `resume` nor `overwrite` is set, or `resume`
            is and the run has ended without a checkpoint.
    """
    if resume and has_ended(cfg) and not resumable_steps(cfg.OUTPUT_DIR):
        raise UserError(
            f"--resume: the run in {cfg.OUTPUT_DIR} has ended and has no checkpoint to continue "
            "from (TRAINING.SAVE_STRATEGY); --overwrite trains it anew."
        )
    inputs = [weights_of(node) for node in (cfg.MODEL, cfg.TEACHER)]
    FILES.check(cfg.OUTPUT_DIR, resume=resume, overwrite=overwrite, inputs=inputs)


def prepare(cfg: CfgNode, resume: bool = False, overwrite: bool = False) -> None:
    """Train the runs of `needed_runs` that have not ended.

    Args:
        resume, overwrite: as of `fit`.

    Raises:
        UserError: as `fit`; also for mistakes in this run's config and data, before its teacher
            trains for hours.
    """
    runs = needed_runs(cfg)
    check_folder(cfg, *start_flags(cfg.OUTPUT_DIR, resume, overwrite))
    missing = of_first([file for file, run in runs.items() if not has_ended(run)])
    if missing:
        _read_data(cfg)
        training_arguments(cfg)
    for run in (runs[file] for file in missing):
        with run_lock(run.OUTPUT_DIR):
            if not of_first(has_ended(run)):  # meanwhile, by another process
                prepare(run, resume, overwrite)
                fit(run, resume, overwrite)


def _read_data(cfg: CfgNode) -> tuple[list[Instruction], list[Instruction] | None]:
    """Read the training and held-out examples, in each process: none waits for another one."""
    examples = read_instructions(path_of(cfg.DATASET.TRAIN))
    held_out = read_instructions(path_of(cfg.DATASET.VALID)) if cfg.DATASET.VALID else None
    return examples, held_out
