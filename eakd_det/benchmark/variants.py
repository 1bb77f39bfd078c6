"""Variants of a detector's training step, by their config keys."""

from typing import Any

Options = dict[str, Any]

SPARSE = {"MODEL.ROI_HEADS.POOLER_BACKEND": "sparse"}

# On a CPU. A name that starts with "stock" is a step of the student alone by Detectron2's trainer.
CPU_VARIANTS: dict[str, Options] = {
    "stock_step": {},
    "stock_step_sparse_pool": SPARSE,
    "distill_step_plain_teacher": {"TEACHER.FAST": False},
    "distill_step_torchvision_pool": {},
    "distill_step": SPARSE,
    "distill_step_bf16_teacher": {**SPARSE, "TEACHER.PRECISION": "bfloat16"},
}

# On a GPU: the student alone by both trainers, then the distilled step without any lever, and with
# one more in each row. "distill_step" has the defaults, "distill_all" has every lever.
STUDENT_VARIANTS: dict[str, Options] = {
    "stock_step": {},
    "student_step": {"DISTILL.METHODS": ()},
    "student_levers": {
        "DISTILL.METHODS": (),
        "MODEL.CHANNELS_LAST": True,
        "CUDNN_BENCHMARK": True,
    },
}
PLAIN: Options = {
    "TEACHER.FAST": False,
    "TEACHER.AHEAD": False,
    "DATALOADER.PREFETCH": False,
    "SOLVER.FUSED": False,
}
LEVERS: dict[str, Options] = {  # name of a row -> keys that it adds
    "distill_fast_teacher": {"TEACHER.FAST": True},
    "distill_fused": {"SOLVER.FUSED": True},
    "distill_prefetch": {"DATALOADER.PREFETCH": True},
    "distill_step": {"TEACHER.AHEAD": True},
    "distill_bf16_teacher": {"TEACHER.PRECISION": "bfloat16"},
    "distill_channels_last": {"MODEL.CHANNELS_LAST": True},
    "distill_cudnn_benchmark": {"CUDNN_BENCHMARK": True},
    "distill_compile": {"TEACHER.COMPILE": 128},
    "distill_cuda_graphs": {"TEACHER.CUDA_GRAPHS": True},
}
COMPILED = ("distill_compile", "distill_cuda_graphs")  # take long to prepare
SHORT = ("stock_step", "distill_step", "distill_all")
SUMMARY = (*STUDENT_VARIANTS, "distill_plain", "distill_step", "distill_all")


def gpu_variants(*, with_compiled: bool) -> dict[str, Options]:
    """Return the variants of a GPU; the last one has all levers.

    Args:
        with_compiled: include COMPILED.
    """
    added = {"distill_plain": PLAIN, **LEVERS}
    if not with_compiled:
        added = {name: options for name, options in added.items() if name not in COMPILED}
    added["distill_all"] = added.pop(list(added)[-1])
    distilled: dict[str, Options] = {}
    options: Options = {}
    for name, more in added.items():
        options = {**options, **more}
        distilled[name] = options
    return {**STUDENT_VARIANTS, **distilled}


def option_texts(variants: dict[str, Options]) -> dict[str, str]:
    """Return name -> keys of a variant; after a "+" those that differ from the row before."""
    texts, before = {}, {}
    for name, options in variants.items():
        is_student = name in STUDENT_VARIANTS
        known = {} if is_student else before
        added = [f"{k} {v}" for k, v in options.items() if k not in known or known[k] != v]
        texts[name] = ("+ " if known else "") + ", ".join(added)
        before = {} if is_student else options
    return texts
