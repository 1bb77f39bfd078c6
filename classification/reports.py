"""The analyses of classifiers, from their networks to a report."""

from collections.abc import Iterator
from functools import partial

from tqdm import tqdm

from eakd_det.analysis.figures import panel_rows
from eakd_det.analysis.landscape import SIZES, Landscape, explore
from eakd_det.analysis.reports import Report, report_landscapes, report_segments, report_separation
from eakd_det.analysis.samples import Samples
from eakd_det.analysis.separation import separate
from eakd_det.analysis.weights import report_weights

from .analysis import (
    Networks,
    collect_samples,
    plane_loss,
    read_batches,
    training_batches,
)
from .sources import source_of


def segments_of(networks: Networks) -> Report:
    """Accuracy over tenths of all test images, by entropy.

    Raises:
        UserError: there is no teacher, or there are too few images.
    """
    teacher, students = _all_samples(networks)
    return report_segments(teacher, students, temperature=networks.cfg.DISTILL.EA.TEMPERATURE)


def weights_of(networks: Networks) -> Report:
    """What moves the weights of all test images.

    Raises:
        UserError: there is no teacher.
    """
    teacher, students = _all_samples(networks)
    return report_weights(
        teacher,
        students,
        _rows(networks),
        temperature=networks.cfg.DISTILL.EA.TEMPERATURE,
    )


def _all_samples(networks: Networks) -> tuple[Samples, dict[str, Samples]]:
    """Of all test images, what the teacher says and what each student does, by its label."""
    networks.needed_teacher()
    *students, teacher = collect_samples(networks.all, read_batches(networks.cfg))
    names = [network.label for network in networks.students]
    return teacher, dict(zip(names, students, strict=True))


def separation_of(networks: Networks, *, num_images: int, seed: int) -> Report:
    """t-SNE of test images, with a bar of progress.

    Args:
        num_images: at most; a random choice that is always the same.
        seed: of t-SNE.
    """
    samples = collect_samples(networks.all, read_batches(networks.cfg, num_images))
    teacher = None if networks.teacher is None else samples[-1]
    separations = {}
    for network, of in zip(tqdm(networks.all, desc="t-SNE"), samples, strict=True):
        separations[network.label] = separate(
            of,
            None if network is networks.teacher else teacher,
            temperature=networks.cfg.DISTILL.EA.TEMPERATURE,
            seed=seed,
        )
    source = source_of(networks.cfg.DATASET.NAME)
    names = source.names or [str(i) for i in range(source.num_classes)]
    return report_separation(separations, _rows(networks), names=names, seed=seed)


def landscape_of(
    networks: Networks, *, size: int, half_width: float, level: float, num_images: int, seed: int
) -> Iterator[Report]:
    """The loss of training images around each network, with a bar of progress for each grid.

    Args:
        size, half_width: of the grid, as `explore` takes them.
        level: of Area@level.
        num_images: at most; a random choice that is always the same.
        seed: of the directions, which networks of one architecture share.

    Yields:
        A report for each grid of SIZES up to that size.

    Raises:
        UserError: a loss is not finite.
    """
    batches = training_batches(networks.cfg, num_images)
    report = partial(
        report_landscapes,
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
    for n in SIZES[: SIZES.index(size) + 1]:
        coarser = {name: of[-1] if of else None for name, of in found.items()}
        total = sum(n**2 - (0 if x is None else x.losses.size) for x in coarser.values())
        with tqdm(total=total, unit="point", desc=f"landscape {n} x {n}") as bar:
            for name, loss in losses.items():
                bar.set_postfix_str(name)
                options = {"coarser": coarser[name], "done": bar.update}
                found[name].append(explore(loss, n, half_width=half_width, **options))
        yield report(found)


def _rows(networks: Networks) -> list[list[str]]:
    groups = {network.label: network.run.name for network in networks.students}
    if networks.teacher is not None:
        groups[networks.teacher.label] = None
    return panel_rows(groups)


def _trajectories(networks: Networks) -> dict[str, dict[int, str]]:
    """Run -> iteration -> label, of runs of which several checkpoints are compared."""
    by_run = {}
    for network in networks.students:
        by_run.setdefault(network.run.name, []).append(network)
    return {
        name: {network.run.iteration(): network.label for network in of}
        for name, of in by_run.items()
        if len(of) > 1
    }
