"""The rewritten network as ONNX, for onnxruntime's QNN provider."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ...errors import ExportError
from ..reauthor import reauthor
from ..shape import Shape
from ..targets import find_target
from .gate import Context


@contextmanager
def as_onnx(context: Context) -> Iterator[Path]:
    """A temporary ``.onnx`` file of the context's network, written as for the bundle's target.

    Raises:
        ExportError: torch cannot write it.
    """
    if context.model is None:
        raise ExportError("writing ONNX needs the network")
    form = find_target(context.bundle.manifest["target"]).form
    outputs = context.bundle.outputs
    rewritten = reauthor(context.model, Shape(*context.bundle.shape), outputs, form).eval()
    with tempfile.TemporaryDirectory(prefix="vggt-edge-onnx-") as folder:
        path = Path(folder) / "network.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporter about itself
            try:
                torch.onnx.export(
                    rewritten,
                    (rewritten.example(),),
                    str(path),
                    input_names=["images"],
                    output_names=list(outputs),
                    dynamo=True,
                    external_data=True,
                    verbose=False,
                )
            except (RuntimeError, TypeError, ValueError, torch.onnx.OnnxExporterError) as error:
                line = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ExportError(f"torch cannot write the network as ONNX: {line}") from error
        yield path
