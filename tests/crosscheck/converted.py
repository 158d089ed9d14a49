"""Networks as OpenVINO's converter writes them: refnet's ONNX export, converted to IR.

converted("resnest-digits", folder, weights=None, half=True) -> folder/resnest-digits-f16.xml
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from refnet.models.export import export
from refnet.models.loading import load
from tests.crosscheck.conftest import interpreter

CODE = """
import sys
import openvino as ov

source, target, half, *shape = sys.argv[1:]
model = ov.convert_model(source, input=[int(size) for size in shape])
ov.save_model(model, target, compress_to_fp16=half == "half")
"""


def converted(
    model: str,
    folder: Path,
    *,
    weights: str | None,
    half: bool,
    image: tuple[int, int] | None = None,
    batch: int = 1,
) -> Path:
    """The .xml, with its .bin beside it. half: whether the weights are stored as float16."""
    path = folder / f"{model}-b{batch}-f{16 if half else 32}.xml"
    graph = load(model, weights=weights, image=image)
    (source,) = export(graph, folder / model, "onnx")
    (kind,) = graph.inputs.values()
    shape = [str(size) for size in (batch, *kind.shape[1:])]
    words = [str(source), str(path), "half" if half else "single", *shape]
    python = str(interpreter("openvino"))
    done = subprocess.run([python, "-c", CODE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return path
