"""Figures that the methods' released code gives; they live outside the repository.

Their folder is ../shared/golden beside the checkout, or the one that EAKD_GOLDEN names. A test that
asks for them where they are absent is skipped.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

FOLDER = Path(
    os.environ.get("EAKD_GOLDEN") or Path(__file__).resolve().parents[2] / "shared/golden"
)
# The atol and rtol of each dtype. A KL is a small difference of log-probabilities, times T^2: in
# float32 it is off by up to 2e-5 here.
PRECISIONS = {torch.float64: 1e-8, torch.float32: 1e-4}
INPUTS = {
    *("student", "teacher", "target", "gt_classes", "proposals_per_image", "num_classes"),
    *("T", "t", "t_configured", "erkd_T", "erkd_T_p", "H_ub"),
    *("alpha", "beta", "LS", "ce_weight", "kd_weight"),
}


def golden(name):
    """The numeric arrays of `name`.npz as tensors; skips the test where the folder is absent."""
    if not FOLDER.is_dir():
        pytest.skip(
            f"no figures of the released code in {FOLDER}; EAKD_GOLDEN may name their folder"
        )
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file}
    return {key: torch.from_numpy(a) for key, a in arrays.items() if a.dtype.kind in "biuf"}


def golden_case(name, case):
    """The arrays "<case>.x" of `name`.npz by x, without those of cases below it."""
    split = {key.rpartition("."): array for key, array in golden(name).items()}
    return {key: array for (prefix, _, key), array in split.items() if prefix == case}


@dataclass
class Figures:
    """Functions that compute each array of a golden file, from the inputs of its case.

    An array "x_per_sample", "x_mean" or "x", and "x_grad" (of the mean, with respect to the
    student's logits) all come from losses["x"].
    """

    file: str
    cases: list[str]  # [""] for a file without cases
    values: dict[str, Callable] = field(default_factory=dict)  # inputs -> tensor
    losses: dict[str, Callable] = field(default_factory=dict)  # inputs, reduction= -> tensor
    out_of_scope: dict[str, str] = field(default_factory=dict)  # array: why it is not compared
    slack: Callable = lambda array, case: 0.0  # what the released code is off by, added to atol

    def compare(self, case: str, dtype: torch.dtype) -> None:
        """Compare every array of `case` with what its inputs give in `dtype`."""
        arrays = self._arrays(case)
        inputs = SimpleNamespace(
            **{name: _as_input(arrays[name], dtype) for name in INPUTS & arrays.keys()}
        )
        inputs.student.requires_grad_()
        for name in arrays.keys() - INPUTS - self.out_of_scope.keys():
            actual = self._compute(name, inputs)
            assert actual.dtype == dtype
            tolerance = PRECISIONS[dtype]
            torch.testing.assert_close(
                actual.double(),
                arrays[name],
                rtol=tolerance,
                atol=tolerance + self.slack(name, inputs),
                msg=lambda text, name=name: f"{self.file} {case}.{name}: {text}",
            )

    def assert_complete(self) -> None:
        """Every array is an input, compared or excused; nothing is listed that is not there."""
        assert {key.rpartition(".")[0] for key in golden(self.file)} == set(self.cases)
        found = set().union(*(self._arrays(case) for case in self.cases)) - INPUTS
        known = self.values.keys() | self.out_of_scope.keys()
        of_losses = {_loss_of(name) for name in found - known}
        assert of_losses == self.losses.keys()
        assert known <= found

    def _arrays(self, case):
        arrays = golden(self.file)
        prefix = f"{case}." if case else ""
        return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}

    def _compute(self, name, inputs):
        if name in self.values:
            return self.values[name](inputs)
        loss = self.losses[_loss_of(name)]
        if name.endswith("_per_sample"):
            return loss(inputs, reduction="none")
        mean = loss(inputs, reduction="mean")
        return torch.autograd.grad(mean, inputs.student)[0] if name.endswith("_grad") else mean


def _loss_of(array):
    return array.removesuffix("_per_sample").removesuffix("_mean").removesuffix("_grad")


def _as_input(array, dtype):
    """Settings as numbers, logits in `dtype`, labels as they are."""
    if array.ndim == 0:
        return array.item()
    return array.to(dtype) if array.is_floating_point() else array
