"""ONNX files."""

import importlib.util
from collections.abc import Callable

import torch
from detectron2.export import TracingAdapter
from torch import Tensor

from eakd_det.utils.errors import UserError

from .traceable import INPUT, OUTPUTS, expected_warnings

OPSET = 17  # from 16 RoiAlign has the half pixel of Detectron2's; newer ones bring nothing here
NEEDED = ("onnx", "onnxruntime")


def require_onnx() -> None:
    """Raise UserError if a package that writes or runs ONNX files is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx: {' and '.join(missing)} not installed; pip install "
            f"{' '.join(NEEDED)} (requirements/export.txt)."
        )


def write_onnx(adapter: TracingAdapter, image: Tensor, path: str, metadata: dict[str, str]) -> None:
    """Trace a detector and write it with the TorchScript-based exporter.

    The exporter on torch.export (dynamo=True) fails at Detectron2's branches on data.

    Args:
        adapter: see `make_traceable`.
        image: (3, H, W) uint8, on which it is traced.
        path: of the file.
        metadata: written as metadata_props.

    Raises:
        UserError: an operator of the model does not exist in ONNX.
    """
    import onnx

    with torch.no_grad():
        names = OUTPUTS[: len(adapter(image))]
    try:
        with expected_warnings():
            torch.onnx.export(
                adapter,
                (image,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(names),
                dynamic_axes={
                    INPUT: {1: "height", 2: "width"},
                    **{name: {0: "detections"} for name in names},
                },
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(
            f"--format onnx: the student cannot be written: {error} Use --format torchscript."
        ) from error
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def load_onnx(path: str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Load a file of `write_onnx` into ONNX Runtime, on as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # warnings are about its own optimizations
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {INPUT: image.numpy()})))

    return run
