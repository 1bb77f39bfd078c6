import itertools

import pytest

from eakd_det.benchmark.batches import with_options
from eakd_det.benchmark.variants import (
    COMPILED,
    CPU_VARIANTS,
    LEVERS,
    SHORT,
    SUMMARY,
    gpu_variants,
    option_texts,
)


@pytest.mark.parametrize("with_compiled", [False, True])
def test_each_lever_adds_to_the_ones_before(with_compiled):
    variants = gpu_variants(with_compiled=with_compiled)
    distilled = [options for name, options in variants.items() if name.startswith("distill")]
    for before, after in itertools.pairwise(distilled):
        assert before.keys() <= after.keys() and before != after
    left_out = () if with_compiled else COMPILED
    wanted = {key for name, x in LEVERS.items() if name not in left_out for key in x}
    assert wanted <= variants["distill_all"].keys()
    assert list(variants)[-1] == "distill_all" and {*SHORT, *SUMMARY} <= set(variants)


def test_the_text_of_options():
    variants = gpu_variants(with_compiled=True)
    texts = option_texts(variants)
    assert list(texts) == list(variants) and texts["stock_step"] == ""
    assert texts["student_step"] == "DISTILL.METHODS ()"
    assert texts["distill_plain"].startswith("TEACHER.FAST False, ")
    assert texts["distill_step"] == "+ TEACHER.AHEAD True"
    short = option_texts({name: variants[name] for name in SHORT})
    assert short["distill_step"].startswith("TEACHER.FAST True, ")
    assert short["distill_all"].startswith("+ TEACHER.PRECISION bfloat16, ")


def test_the_keys_exist(distill_cfg):
    for options in (*CPU_VARIANTS.values(), *gpu_variants(with_compiled=True).values()):
        with_options(distill_cfg, options)


def test_distill_step_has_the_defaults(distill_cfg):
    """On a GPU: the row of a user who sets nothing."""
    options = gpu_variants(with_compiled=True)["distill_step"]
    assert with_options(distill_cfg, options) == distill_cfg
