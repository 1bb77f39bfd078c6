"""The configuration keys of distillation, and the way back to a plain Detectron2 config."""

import difflib
from collections.abc import Iterator
from functools import reduce
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.utils.file_io import PathManager

from eakd_det.distillers.methods import DISTILLERS, scalar_defaults
from eakd_det.losses import entropy_weight
from eakd_det.utils.errors import UserError

from .safe_yaml import merge_file

# Our meta-architectures and the stock ones that their students are.
STOCK_ARCHITECTURES = {"DistillRCNN": "GeneralizedRCNN", "DistillRetinaNet": "RetinaNet"}

BEST_METRIC = "bbox/AP"  # of model_best.pth, by default

# What we add to Detectron2's own nodes.
OUR_KEYS = (
    "MODEL.ROI_HEADS.POOLER_BACKEND",
    "SOLVER.ACCUMULATE",
    "SOLVER.AMP.DTYPE",
    "TEST.BEST_METRIC",
)


def add_distill_config(cfg: CfgNode) -> None:
    """Add the nodes TEACHER and DISTILL, and OUR_KEYS, to a Detectron2 config.

    Defaults come from the signatures of the losses, so each is written once and every key exists
    for the command line; a misspelt one stops the run.
    """
    cfg.TEACHER = CfgNode()
    cfg.TEACHER.CONFIG_FILE = ""  # a path, or a name of Detectron2's model zoo
    cfg.TEACHER.WEIGHTS = ""  # any checkpoint Detectron2 reads
    cfg.TEACHER.FAST = True  # fold its norms, take channels_last
    cfg.TEACHER.PRECISION = ""  # float32, bfloat16, float16, amp; empty is the student's
    cfg.TEACHER.COMPILE = 0  # 128: torch.compile its backbone, for images padded to multiples of it

    cfg.MODEL.ROI_HEADS.POOLER_BACKEND = "torchvision"  # or "sparse": faster on a CPU
    cfg.SOLVER.ACCUMULATE = 1  # parts that a step's IMS_PER_BATCH images are computed in
    cfg.SOLVER.AMP.DTYPE = "float16"  # of SOLVER.AMP.ENABLED; or "bfloat16"
    cfg.TEST.BEST_METRIC = BEST_METRIC  # model_best.pth has the highest at any TEST.EVAL_PERIOD

    cfg.DISTILL = distill_node({name: d.defaults for name, d in DISTILLERS.items()})


def distill_node(methods: dict[str, dict[str, Any]]) -> CfgNode:
    """The node DISTILL: METHODS, the options of each method with their defaults, and EA."""
    node = CfgNode()
    node.METHODS = ()  # any of the names
    for name, defaults in methods.items():
        options = {key.upper(): value for key, value in defaults.items()}
        node[name] = CfgNode({"WEIGHT": 1.0, **options})

    node.EA = CfgNode()
    node.EA.ENABLED = False
    node.EA.MODE = "full"  # any of EA_MODES
    node.EA.TEMPERATURE = scalar_defaults(entropy_weight)["temperature"]
    node.EA.BOUND = 0.0  # upper bound of the entropy in nats; 0 is log(classes)
    return node


def stock_config(cfg: CfgNode) -> CfgNode:
    """Copy a config without our keys: the student as plain Detectron2 sees it."""
    cfg = cfg.clone()
    cfg.defrost()
    for key in ("TEACHER", "DISTILL", *OUR_KEYS):
        *nodes, leaf = key.split(".")
        reduce(getattr, nodes, cfg).pop(leaf, None)
    name = cfg.MODEL.META_ARCHITECTURE
    cfg.MODEL.META_ARCHITECTURE = STOCK_ARCHITECTURES.get(name, name)
    return cfg


def detection_config() -> CfgNode:
    """Detectron2's defaults with our keys."""
    cfg = get_cfg()
    add_distill_config(cfg)
    return cfg


def load_config(path: str, options: list[str] = ()) -> CfgNode:
    """The defaults of `detection_config`, then a file, then KEY VALUE pairs.

    Raises:
        UserError: as `merge_config`.
    """
    cfg = detection_config()
    merge_config(cfg, path, options)
    return cfg


def merge_config(cfg: CfgNode, path: str, options: list[str] = ()) -> None:
    """Merge a file, then KEY VALUE pairs, into a config.

    Raises:
        UserError: there is no such file, it holds more than plain values (`read_yaml`), a key does
            not exist (the nearest one is named), or a value has the wrong type.
    """
    if not PathManager.isfile(path):
        raise UserError(f"--config-file: there is no file {path!r}.")
    for source, merge in [
        (path, lambda: merge_file(cfg, path)),
        ("the command line", lambda: merge_options(cfg, options)),
    ]:
        try:
            merge()
        except UserError:
            raise
        except (AssertionError, KeyError, ValueError) as error:  # what yacs raises
            text = str(error.args[0]) if error.args else ""
            hint = _nearest_key(text, cfg)
            if "<class 'float'> vs. <class 'int'>" in text:
                hint = " Write the number with decimals, as 4.0."
            raise UserError(f"{source}: {text}{hint}") from error


def merge_options(cfg: CfgNode, options: list[str]) -> None:
    """Merge KEY VALUE pairs of a command line, where 4 will do for 4.0; raises what yacs raises."""
    if len(options) % 2:
        known = set(_keys(cfg))
        wrong = next((word for word in options[::2] if word not in known), options[-1])
        raise KeyError(f"pairs of KEY VALUE are wanted, as SOLVER.BASE_LR 0.01; {wrong!r} is none")
    cfg.merge_from_list(_with_decimals(options, cfg))


def _with_decimals(options: list[str], cfg: CfgNode) -> list[str]:
    """KEY VALUE pairs in which whole numbers for keys with decimals have them; yacs wants it so."""
    keys = set(_keys(cfg))
    values = []
    for key, value in zip(options[::2], options[1::2], strict=False):
        if key in keys and value.lstrip("-").isdigit():
            *nodes, leaf = key.split(".")
            is_float = isinstance(reduce(getattr, nodes, cfg)[leaf], float)
            value = f"{value}.0" if is_float else value
        values += [key, value]
    return values + list(options[len(values) :])


def _nearest_key(text: str, cfg: CfgNode) -> str:
    key = text.removeprefix("Non-existent config key: ").removeprefix("Non-existent key: ")
    near = [] if key == text else difflib.get_close_matches(key, _keys(cfg), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
