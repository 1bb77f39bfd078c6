"""eakd_det.export.onnx; its graphs are tested in test_graph.py."""

import importlib.util
import sys

import pytest
import torch

from eakd_det.export import export_graph
from eakd_det.export.onnx import NEEDED, require_onnx, write_onnx
from eakd_det.utils.errors import UserError

has_onnx = all(map(importlib.util.find_spec, NEEDED))
needs_onnx = pytest.mark.skipif(not has_onnx, reason="requirements/export.txt is not installed")


def test_onnx_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    if has_onnx:
        with pytest.raises(UserError, match="--format onnx: onnxruntime not installed; pip "):
            export_graph("run", str(tmp_path / "out"), "onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="onnx and onnxruntime not installed; pip install onnx "):
        require_onnx()


class _Eigenvalues(torch.nn.Module):
    def forward(self, image):
        return (torch.linalg.eigvals(image[0].float()).real,)


@needs_onnx
def test_an_operator_that_onnx_lacks(tmp_path):
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"cannot be written: (.*\n*)*--format torchscript"):
        write_onnx(_Eigenvalues(), image, str(tmp_path / "x.onnx"), {})
