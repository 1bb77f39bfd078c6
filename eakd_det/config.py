"""The configuration keys of distillation, and the way back to a plain Detectron2 config."""

from detectron2.config import CfgNode

from .distillers import DISTILLERS, scalar_defaults
from .losses import entropy_weight

# Our meta-architectures and the stock ones that their students are.
STOCK_ARCHITECTURES = {"DistillRCNN": "GeneralizedRCNN"}


def add_distill_config(cfg: CfgNode) -> None:
    """Add the nodes TEACHER and DISTILL to a Detectron2 config.

    Defaults come from the signatures of the losses, so each is written once and every key exists
    for the command line; a misspelt one stops the run.
    """
    cfg.TEACHER = CfgNode()
    cfg.TEACHER.CONFIG_FILE = ""  # a path, or a name of Detectron2's model zoo
    cfg.TEACHER.WEIGHTS = ""  # any checkpoint Detectron2 reads

    cfg.DISTILL = CfgNode()
    cfg.DISTILL.METHODS = ()  # any of DISTILLERS
    for name, distiller in DISTILLERS.items():
        options = {key.upper(): value for key, value in distiller.defaults.items()}
        cfg.DISTILL[name] = CfgNode({"WEIGHT": 1.0, **options})

    cfg.DISTILL.EA = CfgNode()
    cfg.DISTILL.EA.ENABLED = False
    cfg.DISTILL.EA.MODE = "full"  # any of EA_MODES
    cfg.DISTILL.EA.TEMPERATURE = scalar_defaults(entropy_weight)["temperature"]
    cfg.DISTILL.EA.BOUND = 0.0  # upper bound of the entropy in nats; 0 is log(classes)


def stock_config(cfg: CfgNode) -> CfgNode:
    """Copy a config without our keys: the student as plain Detectron2 sees it."""
    cfg = cfg.clone()
    cfg.defrost()
    for key in ("TEACHER", "DISTILL"):
        cfg.pop(key, None)
    name = cfg.MODEL.META_ARCHITECTURE
    cfg.MODEL.META_ARCHITECTURE = STOCK_ARCHITECTURES.get(name, name)
    return cfg
