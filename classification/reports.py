"""The analyses of classifiers, from their networks to a report."""

import torch
from tqdm import tqdm

from eakd_det.analysis.figures import panel_rows
from eakd_det.analysis.landscape import explore
from eakd_det.analysis.reports import (
    Report,
    report_landscapes,
    report_segments,
    report_separation,
)
from eakd_det.analysis.separation import separate

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
    networks.needed_teacher()
    *students, teacher = collect_samples(networks.all, read_batches(networks.cfg))
    names = [network.label for network in networks.students]
    return report_segments(
        teacher,
        dict(zip(names, students, strict=True)),
        temperature=networks.cfg.DISTILL.EA.TEMPERATURE,
    )


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
    names = [str(i) for i in range(source_of(networks.cfg.DATASET.NAME).num_classes)]
    return report_separation(separations, _rows(networks), names=names, seed=seed)


def landscape_of(
    networks: Networks, *, size: int, half_width: float, level: float, num_images: int, seed: int
) -> Report:
    """The loss of training images around each network, with a bar of progress.

    Args:
        size, half_width: of the grid, as `explore` takes them.
        level: of Area@level.
        num_images: at most; a random choice that is always the same.
        seed: of the directions, which networks of one architecture share.

    Raises:
        UserError: a loss is not finite.
    """
    batches = training_batches(networks.cfg, num_images)
    landscapes = {}
    with tqdm(total=size**2 * len(networks.all), unit="points", desc="landscape") as bar:
        for network in networks.all:
            bar.set_postfix_str(network.label)
            loss = plane_loss(network, batches, seed)
            landscapes[network.label] = explore(
                loss, size=size, half_width=half_width, done=bar.update
            )
    setting = {
        "images": sum(len(labels) for _, labels in batches),
        "half_width": half_width,
        "seed": seed,
        "device": networks.cfg.MODEL.DEVICE,
        "torch": torch.__version__,
    }
    return report_landscapes(
        landscapes,
        _rows(networks),
        _trajectories(networks),
        level=level,
        teacher=None if networks.teacher is None else networks.teacher.label,
        setting=setting,
    )


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
