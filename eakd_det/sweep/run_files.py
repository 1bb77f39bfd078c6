"""The folder of a run, as it is read for a report."""

from dataclasses import dataclass
from typing import Any

from eakd_det.analysis.metrics import Series
from eakd_det.analysis.runs import Run


@dataclass(frozen=True)
class RunFiles:
    """Contents of a run's folder.

    Attributes:
        run: its label and folder.
        config_text: config.yaml as text.
        config: config.yaml, parsed.
        metrics: name of a metric -> its values over the iterations.
        result: result.json; empty if the run has not written it.
        record: run.json, likewise.
        group: name of the runs that differ from it in the seed alone; their lines are drawn as one.
    """

    run: Run
    config_text: str
    config: dict[str, Any]
    metrics: dict[str, Series]
    result: dict[str, Any]
    record: dict[str, Any]
    group: str

    def last(self, name: str) -> float | None:
        """Return the last value of a metric."""
        return self.metrics[name][-1][1] if self.metrics.get(name) else None

    @property
    def iterations(self) -> int:
        """Number of iterations up to the last logged loss."""
        return self.metrics["total_loss"][-1][0] + 1 if "total_loss" in self.metrics else 0

    @property
    def parameters(self) -> int | None:
        """Number of the student's parameters, if the run has noted it."""
        return self.record.get("parameters", self.result.get("parameters"))

    @property
    def seconds(self) -> tuple[float | None, bool]:
        """Time of the training, and whether it was measured; else it is summed up from the log."""
        if "seconds" in self.result:
            return self.result["seconds"], True
        total, before = 0.0, -1
        for iteration, seconds_each in self.metrics.get("time", []):
            total += seconds_each * (iteration - before)
            before = iteration
        return total or None, False
