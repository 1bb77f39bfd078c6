"""Precisions of mixed precision training and of frozen teachers."""

import contextlib
import logging

import torch

from .errors import UserError

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
PRECISIONS = ("", "float32", *HALVES, "amp")  # values of TEACHER.PRECISION


def precision(name: str) -> torch.dtype:
    """Return the autocast dtype of a value of SOLVER.AMP.DTYPE.

    Raises:
        UserError: it is unknown.
    """
    if name not in HALVES:
        choices = ", ".join(HALVES)
        raise UserError(f"SOLVER.AMP.DTYPE: {name!r} is unknown; choose from {choices}.")
    return HALVES[name]


class Precision:
    """Precision in which a frozen network computes, TEACHER.PRECISION.

    Attributes:
        dtype: dtype to which its weights and inputs are cast; None leaves them unchanged.
    """

    def __init__(self, name: str = "", amp_dtype: str = "float16"):
        """
        Args:
            name: one of PRECISIONS: "" is the student's (float32, or its autocast), "float32" is
                full precision, "bfloat16" and "float16" cast the weights, "amp" is autocast
                whatever the student uses.
            amp_dtype: autocast dtype of "amp", as SOLVER.AMP.DTYPE.

        Raises:
            UserError: the precision or the dtype is unknown.
        """
        if name not in PRECISIONS:
            choices = ", ".join(PRECISIONS[1:])
            raise UserError(
                f"TEACHER.PRECISION: {name!r} is unknown; choose from {choices}, or leave it empty."
            )
        self.name, self.dtype, self.amp_dtype = name, HALVES.get(name), precision(amp_dtype)

    def context(self, device: torch.device) -> contextlib.AbstractContextManager:
        """Return the context in which to run the network's forward pass on a device."""
        if not self.name:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.amp_dtype, enabled=self.name == "amp")

    def warn_if_slow(self, device: torch.device) -> None:
        """Log a warning if the CPU has no instructions for the half precision."""
        computes_halves = self.dtype is not None or self.name == "amp"
        if computes_halves and device.type == "cpu":
            capability = torch.backends.cpu.get_cpu_capability()
            if capability == "AVX2":
                logging.getLogger(__name__).warning(
                    f"TEACHER.PRECISION {self.name}: this CPU ({capability}) has no instructions "
                    "for it, and float32 is several times as fast here."
                )
