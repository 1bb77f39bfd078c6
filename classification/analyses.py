"""The analyses of classifiers: commands of tools/analyze.py."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from eakd_det.analysis.calibration import calibration_result, measure_calibration
from eakd_det.analysis.commands import GRID_SIZES
from eakd_det.analysis.confusions import confusions_result
from eakd_det.analysis.figures import panel_rows
from eakd_det.analysis.landscape import Landscape, explore
from eakd_det.analysis.results import (
    AnalysisResult,
    analyze_dynamics,
    landscapes_result,
    segments_result,
    separation_result,
)
from eakd_det.analysis.runs import Run, named_run
from eakd_det.analysis.samples import Samples
from eakd_det.analysis.weights import weights_result
from eakd_det.utils.errors import UserError

from .analysis import (
    Networks,
    collect_samples,
    load_networks,
    plane_loss,
    read_batches,
    training_batches,
)
from .calibrated import check_path, fitted_temperature, network_to_save, write_calibrated
from .sources import source_of


def segments_of(networks: Networks) -> AnalysisResult:
    """Compute the accuracy in tenths of all test images, by entropy.

    Raises:
        UserError: there is no teacher, or there are too few images.
    """
    teacher, students = _all_samples(networks)
    return segments_result(teacher, students, temperature=networks.cfg.DISTILL.EA.TEMPERATURE)


def weights_of(networks: Networks) -> AnalysisResult:
    """Compute how w_EA of all test images varies with teacher and student.

    Raises:
        UserError: there is no teacher.
    """
    teacher, students = _all_samples(networks)
    return weights_result(
        teacher,
        students,
        _rows(networks),
        temperature=networks.cfg.DISTILL.EA.TEMPERATURE,
    )


def _all_samples(networks: Networks) -> tuple[Samples, dict[str, Samples]]:
    """Return the teacher's samples of all test images, and each student's by its label."""
    networks.needed_teacher()
    *students, teacher = collect_samples(networks.all, read_batches(networks.cfg))
    names = [network.label for network in networks.students]
    return teacher, dict(zip(names, students, strict=True))


def confusions_of(networks: Networks) -> AnalysisResult:
    """Compute the top-1 of each class, and the confusions of the classes, on all test images."""
    samples = collect_samples(networks.all, read_batches(networks.cfg))
    found = {network.label: of for network, of in zip(networks.all, samples, strict=True)}
    return confusions_result(found, _rows(networks), names=_class_names(networks))


def _class_names(networks: Networks) -> Sequence[str]:
    """Return the names of the classes, or else their numbers."""
    source = source_of(networks.cfg.DATASET)
    return source.names or [str(i) for i in range(source.num_classes)]


def calibration_of(
    networks: Networks, *, save_calibrated: str, temperature: float | None = None
) -> Iterator[AnalysisResult]:
    """Compute NLL and ECE of each network on all test images, and the temperature it needs.

    Args:
        save_calibrated: path of a new checkpoint of the teacher, or of the only run without one,
            with the temperature in its weights; empty for none.
        temperature: of the checkpoint; None for the fitted one.

    Yields:
        The figure and its table, then the checkpoint.

    Raises:
        UserError: there are too few images, or the checkpoint cannot be written.
    """
    saved = network_to_save(networks) if save_calibrated else None
    samples = collect_samples(networks.all, read_batches(networks.cfg))
    found = {
        network.label: measure_calibration(of)
        for network, of in zip(networks.all, samples, strict=True)
    }
    top1 = {
        network.label: 100 * of.is_correct.double().mean().item()
        for network, of in zip(networks.all, samples, strict=True)
    }
    yield calibration_result(found, top1, _rows(networks))
    if saved is not None:
        if temperature is None:
            temperature = fitted_temperature(saved, found[saved.label])
        write_calibrated(saved, temperature, networks.cfg, save_calibrated)
        row = [saved.label, temperature]
        yield AnalysisResult({}, ["checkpoint of", "temperature"], [row], files=[save_calibrated])


def separation_of(networks: Networks, *, num_images: int, seed: int) -> AnalysisResult:
    """Compute t-SNE of test images, with a progress bar.

    Args:
        num_images: at most, a fixed random choice.
        seed: of t-SNE.
    """
    samples = collect_samples(networks.all, read_batches(networks.cfg, num_images))
    return separation_result(
        {network.label: of for network, of in zip(networks.all, samples, strict=True)},
        None if networks.teacher is None else samples[-1],
        _rows(networks),
        names=_class_names(networks),
        temperature=networks.cfg.DISTILL.EA.TEMPERATURE,
        seed=seed,
    )


def landscape_of(
    networks: Networks, *, size: int, half_width: float, level: float, num_images: int, seed: int
) -> Iterator[AnalysisResult]:
    """Compute the loss of training images around each network, with a progress bar for each grid.

    Args:
        size, half_width: of the grid, as `explore` takes them.
        level: of Area@level.
        num_images: at most, a fixed random choice.
        seed: of the directions, which networks of one architecture share.

    Yields:
        A result for each grid of GRID_SIZES up to that size.

    Raises:
        UserError: a loss is not finite.
    """
    batches = training_batches(networks.cfg, num_images)
    result_of = partial(
        landscapes_result,
        rows=_rows(networks),
        runs=_trajectories(networks),
        level=level,
        teacher=None if networks.teacher is None else networks.teacher.label,
        setting={
            "images": sum(len(labels) for _, labels in batches),
            "half_width": half_width,
            "seed": seed,
        },
    )
    losses = {network.label: plane_loss(network, batches, seed) for network in networks.all}
    found: dict[str, list[Landscape]] = {name: [] for name in losses}
    for n in GRID_SIZES[: GRID_SIZES.index(size) + 1]:
        coarser = {name: of[-1] if of else None for name, of in found.items()}
        total = sum(n**2 - (0 if x is None else x.losses.size) for x in coarser.values())
        with tqdm(total=total, unit="point", desc=f"landscape {n} x {n}") as bar:
            for name, loss in losses.items():
                bar.set_postfix_str(name)
                options = {"coarser": coarser[name], "done": bar.update}
                found[name].append(explore(loss, n, half_width=half_width, **options))
        yield result_of(found)


def _rows(networks: Networks) -> list[list[str]]:
    groups = {network.label: network.run.name for network in networks.students}
    if networks.teacher is not None:
        groups[networks.teacher.label] = None
    return panel_rows(groups)


def _trajectories(networks: Networks) -> dict[str, dict[int, str]]:
    """Return run -> iteration -> label, for runs with several checkpoints."""
    by_run = {}
    for network in networks.students:
        by_run.setdefault(network.run.name, []).append(network)
    return {
        name: {network.run.iteration(): network.label for network in of}
        for name, of in by_run.items()
        if len(of) > 1
    }


def _of_networks(
    function: Callable[..., AnalysisResult | Iterable[AnalysisResult]],
) -> Callable[..., Iterable[AnalysisResult]]:
    """Return the function of a command, which calls `function` with the networks of its runs."""

    def run(
        runs: list[Run], *, config_file: str, teacher: str, **values: Any
    ) -> Iterable[AnalysisResult]:
        networks = load_networks(runs, config_file=config_file, teacher=named_run(teacher))
        found = function(networks, **values)
        return [found] if isinstance(found, AnalysisResult) else found

    return run


def _calibration(
    runs: list[Run], *, save_calibrated: str, temperature: float | None, **values: Any
) -> Iterable[AnalysisResult]:
    """Check the flags before the networks are loaded, and call `calibration_of`."""
    if save_calibrated:
        check_path(save_calibrated)
    elif temperature is not None:
        raise UserError("--temperature needs --save-calibrated FILE.pth, the checkpoint to write.")
    options = {"save_calibrated": save_calibrated, "temperature": temperature}
    return _of_networks(calibration_of)(runs, **options, **values)


ANALYSES = {
    "entropy-segments": _of_networks(segments_of),
    "weights": _of_networks(weights_of),
    "confusions": _of_networks(confusions_of),
    "calibration": _calibration,
    "tsne": _of_networks(separation_of),
    "landscape": _of_networks(landscape_of),
    "dynamics": analyze_dynamics,
}
