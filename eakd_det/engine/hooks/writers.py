"""Detectron2's writers, with entropies and weights on the terminal line."""

import logging

from detectron2.utils.events import CommonMetricPrinter, EventWriter, get_event_storage

from eakd_det.distillers.entropy_statistics import COLUMNS, PARTS


def show_statistics(writers: list[EventWriter], max_iter: int) -> list[EventWriter]:
    """Return the writers, with a DistillMetricPrinter in place of Detectron2's terminal line."""
    return [
        DistillMetricPrinter(max_iter) if type(writer) is CommonMetricPrinter else writer
        for writer in writers
    ]


class DistillMetricPrinter(CommonMetricPrinter):
    """CommonMetricPrinter with entropies and weights at the end of its line."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.logger = _WithStatistics(self.logger)


class _WithStatistics(logging.LoggerAdapter):
    """Appends the latest entropies and weights to each message."""

    def __init__(self, logger: logging.Logger):
        super().__init__(logger, {})

    def process(self, msg, kwargs):
        latest = get_event_storage().latest()
        for part in PARTS:
            keys = [f"distill/{part}/{column}" for column in COLUMNS]
            if keys[0] in latest:
                values = [latest[key][0] for key in keys]
                msg += part + " H_T {:.3g} H_S {:.3g} w_EA {:.3g} [{:.2g}, {:.2g}]  ".format(
                    *values
                )
        return msg, kwargs
