"""The parts of the benchmark that train detectors."""

from typing import Any

from detectron2.config import CfgNode

from eakd_det.model_zoo import get_config_file

from . import timing
from .batches import Size, benchmark_config, make_batch, with_options
from .bench import Bench
from .comparison import differences, step_flops, teacher_weights_mib
from .host_calls import dearest_calls, table_of_calls
from .measure import Figures
from .peak import measure_peak
from .steps import build_lower_bound, build_step, step_builders, teacher_builders
from .variants import CPU_VARIANTS, SHORT, SUMMARY, Options, gpu_variants, option_texts

CONFIG, DIGITS = (f"{x}-Detection/EA-DKD-R18-R101.yaml" for x in ("COCO", "Digits"))
DIGITS_SIZE = Size(8, 96, 96)
PEAKS = {"peak_stock_mib": "stock_step", "peak_distill_mib": "distill_step_torchvision_pool"}
PROFILED = ("stock_step", "distill_step")
HALF_TABLES = {"float16": "detection_amp", "bfloat16": "detection_bfloat16"}


def run_detection(bench: Bench) -> dict[str, Any]:
    """Measure steps and the teacher of --config-file, and compare the variants.

    Returns:
        Name -> seconds; "peak_*_mib", "teacher_weights_mib"; "difference", of `differences`; on a
        CPU "gemm_share", of the speed of a product of matrices. On a GPU the tables of SOLVER.AMP
        are among `bench.measured`.
    """
    cfg = benchmark_config(bench.args.config_file, bench.args.opts, bench.folder)
    batch = make_batch(bench.size, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    results: dict[str, Any] = {"teacher_weights_mib": teacher_weights_mib(cfg)}
    measure_here = _measure_on_gpu if bench.on_gpu else _measure_on_cpu
    results |= measure_here(bench, cfg, batch, results["teacher_weights_mib"])
    results |= bench.add(
        "teacher",
        teacher_builders(cfg, batch),
        title="the teacher's backbone alone",
        base="teacher_backbone_stock",
    )
    results["difference"] = differences(cfg, _compared(bench), batch)
    for name, value in results["difference"].items():
        bench.report(f"{name}: relative difference {value:.2g}")
    if bench.args.profile:
        results["host_calls"] = _profile(bench, cfg, batch)
    return results


def run_digits(bench: Bench) -> dict[str, float]:
    """Measure steps of the digits' detector; seconds by name."""
    cfg = benchmark_config(get_config_file(DIGITS), [], bench.folder)
    batch = make_batch(DIGITS_SIZE, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    return _measure_steps(bench, "digits", cfg, batch, names=SHORT if bench.on_gpu else None)


def _measure_on_cpu(
    bench: Bench, cfg: CfgNode, batch: list, weights_mib: float
) -> dict[str, float]:
    peaks: dict[str, float] = {}

    def add_peaks(rows: dict[str, Figures]) -> None:
        for key, name in PEAKS.items():
            variant, is_stock = with_options(cfg, CPU_VARIANTS[name]), name.startswith("stock")
            peaks[key] = measure_peak(variant, bench.size, is_stock=is_stock)
            rows[name]["peak_mib"] = peaks[key]

    seconds = _measure_steps(bench, "detection", cfg, batch, more=add_peaks)
    peak_flops = timing.gemm_peak(bench.device)
    share = step_flops(cfg, batch) / seconds["distill_step"] / peak_flops
    bench.report(f"distill_step: {share:.2f} of the speed of a product of matrices\n")
    return {**seconds, **peaks, "gemm_share": share}


def _measure_on_gpu(
    bench: Bench, cfg: CfgNode, batch: list, weights_mib: float
) -> dict[str, float]:
    def add_weights(rows: dict[str, Figures]) -> None:
        rows["teacher_weights"] = dict.fromkeys(("allocated_mib", "reserved_mib"), weights_mib)

    seconds = _measure_steps(bench, "detection", cfg, batch, names=SUMMARY, more=add_weights)
    for dtype, name in HALF_TABLES.items():
        half = with_options(cfg, {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": dtype})
        names = SHORT if dtype == "float16" else None
        _measure_steps(bench, name, half, batch, names=names, with_compiled=dtype == "bfloat16")
    rows = bench.measured["detection"]
    peaks = {
        "peak_stock_mib": rows["stock_step"]["allocated_mib"],
        "peak_distill_mib": rows["distill_step"]["allocated_mib"],
    }
    return {**seconds, **peaks}


def _measure_steps(
    bench: Bench,
    table: str,
    cfg: CfgNode,
    batch: list,
    *,
    names: tuple[str, ...] | None = None,
    with_compiled: bool = False,
    **options: Any,
) -> dict[str, float]:
    """Measure the variants, or those with `names`, as a table; seconds by name."""
    variants = gpu_variants(with_compiled=with_compiled) if bench.on_gpu else CPU_VARIANTS
    variants = {name: variants[name] for name in names or variants}
    notes = option_texts(variants) if bench.on_gpu else None
    builders = step_builders(cfg, variants, batch)
    if not bench.on_gpu:
        builders["stock_step_and_teacher"] = lambda: build_lower_bound(cfg, batch)
    amp = f", {cfg.SOLVER.AMP.DTYPE} AMP" if cfg.SOLVER.AMP.ENABLED else ""
    height, width = batch[0]["image"].shape[1:]
    title = f"{table}, {Size(len(batch), height, width)}{amp}, one training step"
    return bench.steps(table, builders, title=title, base="stock_step", notes=notes, **options)


def _compared(bench: Bench) -> dict[str, Options]:
    """Return the variants that `differences` compares, the plain one first."""
    if not bench.on_gpu:
        names = ("distill_step_plain_teacher", "distill_step_torchvision_pool", "distill_step")
        return {name: CPU_VARIANTS[name] for name in names}
    variants = gpu_variants(with_compiled=False)
    return {name: variants[name] for name in ("distill_plain", "distill_step")}


def _profile(bench: Bench, cfg: CfgNode, batch: list) -> dict[str, Any]:
    """Report the dearest calls of the host in a step, under bfloat16 AMP on a GPU."""
    if bench.on_gpu:
        cfg = with_options(cfg, {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "bfloat16"})
    results = {}
    for name in PROFILED:
        options = {} if bench.on_gpu else CPU_VARIANTS[name]
        step = build_step(with_options(cfg, options), batch, is_stock=name.startswith("stock"))
        results[name] = dearest_calls(step)
        bench.report(table_of_calls(name, results[name]))
    return results
