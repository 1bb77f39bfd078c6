"""Configuration keys of distillation, and conversion to a plain Detectron2 config."""

from functools import reduce
from typing import Any

from detectron2.config import CfgNode, get_cfg

from eakd_det.distillers import DISTILLERS, scalar_defaults
from eakd_det.distillers.ea import NO_EA
from eakd_det.losses import entropy_weight

# Our meta-architectures, and the stock ones of their students.
STOCK_ARCHITECTURES = {"DistillRCNN": "GeneralizedRCNN", "DistillRetinaNet": "RetinaNet"}

BEST_METRIC = "bbox/AP"  # default metric of model_best.pth

# Backbones of this package. Those of timm need the node MODEL.TIMM, which student.yaml then keeps.
TIMM_BACKBONES = ("build_timm_fpn_backbone", "build_retinanet_timm_fpn_backbone")
OUR_BACKBONES = ("build_mobilenetv2_fpn_backbone", *TIMM_BACKBONES)

# Keys that we add to Detectron2's own nodes.
OUR_KEYS = (
    "DATALOADER.PREFETCH",
    "DDP_TIMEOUT",
    "MODEL.CHANNELS_LAST",
    "MODEL.ROI_HEADS.POOLER_BACKEND",
    "SOLVER.ACCUMULATE",
    "SOLVER.AMP.DTYPE",
    "SOLVER.FUSED",
    "TEST.BEST_METRIC",
)


def add_distill_config(cfg: CfgNode) -> None:
    """Add the nodes TEACHER and DISTILL, and OUR_KEYS, to a Detectron2 config.

    It also registers the meta-architectures, backbones and datasets of this package. Defaults come
    from the signatures of the losses: each is written once, and every key exists, so that a
    misspelt key on the command line stops the run.
    """
    import eakd_det.modeling  # noqa: F401  (registers; it reads configs itself, so not above)

    cfg.DDP_TIMEOUT = 1800  # seconds that the processes of a run wait for one another
    cfg.TEACHER = CfgNode()
    cfg.TEACHER.CONFIG_FILE = ""  # a path, or a name of Detectron2's model zoo
    cfg.TEACHER.WEIGHTS = ""  # any checkpoint Detectron2 reads
    cfg.TEACHER.FAST = True  # fuse its norms, use channels_last
    cfg.TEACHER.PRECISION = ""  # float32, bfloat16, float16, amp; empty is the student's
    cfg.TEACHER.COMPILE = 0  # 128: torch.compile its backbone, for images padded to multiples of it
    cfg.TEACHER.AHEAD = True  # on a GPU: compute its features of the next batch during this step
    cfg.TEACHER.CUDA_GRAPHS = False  # on a GPU, with COMPILE: replay a graph for each padded shape

    cfg.DATALOADER.PREFETCH = True  # on a GPU: copy the next batch there; False: AHEAD is off, too
    cfg.MODEL.TIMM = CfgNode()
    cfg.MODEL.TIMM.NAME = ""  # model of timm, of the backbones of TIMM_BACKBONES
    cfg.MODEL.CHANNELS_LAST = False  # memory format of the student, and of an unprepared teacher
    cfg.MODEL.ROI_HEADS.POOLER_BACKEND = "torchvision"  # or "sparse": faster on a CPU
    cfg.SOLVER.ACCUMULATE = 1  # micro-batches of a step's IMS_PER_BATCH images
    cfg.SOLVER.AMP.DTYPE = "float16"  # autocast dtype of SOLVER.AMP.ENABLED; or "bfloat16"
    cfg.SOLVER.FUSED = True  # on a GPU: the fused optimizer, which leaves out a bad step by itself
    cfg.TEST.BEST_METRIC = BEST_METRIC  # metric whose highest value model_best.pth has

    cfg.DISTILL = distill_node({name: d.defaults for name, d in DISTILLERS.items()})
    cfg.DISTILL.EA.BACKGROUND = NO_EA["background"]  # any of BACKGROUND_WEIGHTS
    cfg.DISTILL.LEVELS = ()  # the student's maps that methods on features compare; () is all
    cfg.DISTILL.FEATURES = ()  # (student's, teacher's) modules by name, compared in place of levels
    # Classes that student and teacher have in common: names, or pairs of the student's and the
    # teacher's name; without any, all in the same order.
    cfg.DISTILL.CLASSES = ()


def distill_node(methods: dict[str, dict[str, Any]]) -> CfgNode:
    """Build the node DISTILL with METHODS, the options of each method, and EA.

    Args:
        methods: name of a method -> its options with their defaults.
    """
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
    """Copy a config without our keys: the plain Detectron2 config of the student.

    With a backbone of timm it keeps MODEL.TIMM, without which it cannot be built.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.MODEL.BACKBONE.NAME not in TIMM_BACKBONES:
        cfg.MODEL.pop("TIMM", None)
    for key in ("TEACHER", "DISTILL", *OUR_KEYS):
        *nodes, leaf = key.split(".")
        reduce(getattr, nodes, cfg).pop(leaf, None)
    name = cfg.MODEL.META_ARCHITECTURE
    cfg.MODEL.META_ARCHITECTURE = STOCK_ARCHITECTURES.get(name, name)
    return cfg


def detection_config() -> CfgNode:
    """Return Detectron2's default config with our keys."""
    cfg = get_cfg()
    add_distill_config(cfg)
    return cfg
