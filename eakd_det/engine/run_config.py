"""Config of a detector's run: its file, its flags, then its KEY VALUE pairs."""

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm

from eakd_det.checkpoint.run_folder import RunFolder
from eakd_det.config.choices import Choice, as_options
from eakd_det.config.defaults import detection_config
from eakd_det.config.merge import load_config, merge_options
from eakd_det.config.safe_yaml import read_yaml
from eakd_det.config.students import TIMM, student_choices
from eakd_det.data.registered import count_training_images
from eakd_det.model_zoo.model_zoo import CONFIGS
from eakd_det.utils.errors import UserError

from .restart import changed_start, changed_step, describe_changes
from .schedule import epoch_choices
from .teacher_folder import check_is_distilled, compare_classes, find_teacher, teacher_choices

# Parts of paths of annotation files that tell nothing about the data.
_GENERIC = ("annotations", "_annotations.coco", "labels")


@dataclass
class RunConfig:
    """Config of a run and what was chosen for it.

    Attributes:
        cfg: the config.
        choices: values that follow from flags.
        teacher: files of --teacher, or None.
        notes: sentences for the log.
    """

    cfg: CfgNode
    choices: list[Choice]
    teacher: RunFolder | None
    notes: list[str] = field(default_factory=list)

    def compare_classes(self) -> None:
        """Compare the classes of --teacher with those of the data; see `compare_classes`."""
        if self.teacher is not None:
            self.notes += compare_classes(self.cfg, self.teacher)

    def set_schedule(self, args: argparse.Namespace) -> None:
        """Set the schedule of --epochs, once the data are registered."""
        options, images = args.opts, count_training_images(self.cfg)
        from_file, given = load_config(args.config_file), set(options[::2])
        found = epoch_choices(self.cfg, from_file, given, epochs=args.epochs, images=images)
        merge_options(self.cfg, [*as_options(found), *options])
        self.choices += found

    def keep_step(self, args: argparse.Namespace) -> None:
        """Keep the images of a step in a resumed run that has another number of processes.

        SOLVER.ACCUMULATE of the command line has the last word.
        """
        first = changed_start(self.cfg.OUTPUT_DIR, resume=args.resume)
        if first is None or "SOLVER.ACCUMULATE" in args.opts[::2]:
            return
        # As at the first start, where Detectron2 scales a step with the number of processes.
        self.cfg = DefaultTrainer.auto_scale_workers(self.cfg, first["processes"])
        self.cfg.defrost()
        solver, processes = self.cfg.SOLVER, comm.get_world_size()
        solver.REFERENCE_WORLD_SIZE = processes if solver.REFERENCE_WORLD_SIZE else 0
        micro_batches = first["processes"] * first.get("accumulate", solver.ACCUMULATE)
        step = changed_step(solver.IMS_PER_BATCH, solver.BASE_LR, processes, micro_batches)
        new = dict(zip(("IMS_PER_BATCH", "ACCUMULATE", "BASE_LR"), step, strict=True))
        changes = {f"SOLVER.{key}": (solver[key], value) for key, value in new.items()}
        self.notes.append(describe_changes(first, changes))
        solver.update(new)


def configure(args: argparse.Namespace) -> RunConfig:
    """Return the config of a command line, without its data and their schedule.

    Args:
        args: of `main`.

    Raises:
        UserError: the config is that of another tool, or the values of flags or keys do not fit.
    """
    _refuse_other_tools(args.config_file)
    cfg = load_config(args.config_file)
    choices, notes = _output_dir(cfg, args)
    choices += student_choices(cfg, args.student) if args.student else []
    teacher = find_teacher(args.teacher) if args.teacher else None
    choices += [] if teacher is None else teacher_choices(args.teacher, teacher)
    cfg = load_config(args.config_file, [*as_options(choices), *args.opts])
    if teacher is not None and not args.eval_teacher:
        check_is_distilled(cfg, args.config_file)
    return RunConfig(cfg, choices, teacher, notes)


def _refuse_other_tools(path: str) -> None:
    dataset = read_yaml(path).get("DATASET") if os.path.isfile(path) else None
    if dataset is not None:
        kind, tool = ("a classifier", "train_classifier")
        if "TRAIN" in dataset or "VALID" in dataset:
            kind, tool = ("a language model", "train_lm")
        raise UserError(f"{path} is the config of {kind}: tools/{tool}.py trains it.")


def _output_dir(cfg: CfgNode, args: argparse.Namespace) -> tuple[list[Choice], list[str]]:
    """Return an OUTPUT_DIR of its own for a user's data, unless one is set, and a note."""
    own = cfg.OUTPUT_DIR
    if not args.train_json or "OUTPUT_DIR" in args.opts[::2] or not _is_default(own, args):
        return [], []
    name = Path(args.config_file).stem
    if args.student:
        name += f"-{args.student.removeprefix(TIMM)}"
    folder = os.path.join("output", _name_of(args.train_json), name)
    notes = []
    if args.resume and _holds_run(own) and not _holds_run(folder):
        notes = [f"{own} holds a run, too: OUTPUT_DIR {own} would continue that one."]
    return [Choice("OUTPUT_DIR", folder, "of --train-json and the config")], notes


def _is_default(output_dir: str, args: argparse.Namespace) -> bool:
    """Return True for Detectron2's OUTPUT_DIR, and for a packaged config's unless it is a run's."""
    if os.path.realpath(os.path.dirname(args.config_file)) == os.path.realpath(output_dir):
        return False  # the config.yaml of a run
    first, _, name = output_dir.partition("/")
    is_packaged = first == "output" and (CONFIGS / f"{name}.yaml").is_file()
    return is_packaged or output_dir == detection_config().OUTPUT_DIR


def _name_of(json_file: str) -> str:
    """Return the name of a JSON file behind that of its folder, as parts-train."""
    parts = Path(os.path.abspath(json_file)).with_suffix("").parts[1:]
    return "-".join([part for part in parts if part not in _GENERIC][-2:])


def _holds_run(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "last_checkpoint"))
