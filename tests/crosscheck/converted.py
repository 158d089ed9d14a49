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

source, target, half, means, scales, logits, *shape = sys.argv[1:]
model = ov.convert_model(source, input=[int(size) for size in shape])
if logits:
    for result in model.get_results():
        if result.input_value(0).get_node().get_type_name() == "Softmax":
            model.remove_result(result)
    (output,) = model.outputs
    output.set_names({"prob"})
if means:
    steps = ov.preprocess.PrePostProcessor(model)
    tensor = steps.input().tensor().set_element_type(ov.Type.f32).set_layout(ov.Layout("NCHW"))
    tensor.set_color_format(ov.preprocess.ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    inside = steps.input().preprocess().convert_color(ov.preprocess.ColorFormat.RGB)
    inside.mean([float(m) for m in means.split(",")]).scale([float(s) for s in scales.split(",")])
    model = steps.build()
ov.save_model(model, target, compress_to_fp16=half == "half")
"""

PIXELS = {
    "octave-se-resnet-50-0.125": ((124.0, 117.0, 104.0), (59.880239521,) * 3),
    "resnest-50-pytorch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
"""Network -> the mean and scale of the converter's call for it, in the order RGB."""


def converted(
    model: str,
    folder: Path,
    *,
    weights: str | None,
    half: bool,
    image: tuple[int, int] | None = None,
    batch: int = 1,
    pixels: bool = False,
    logits: bool = False,
) -> Path:
    """The .xml, with its .bin beside it. half: whether the weights are stored as float16.

    pixels: it takes them in the order BGR, with the network's own mean and scale inside. logits: these are
    its one output, and called prob, as those of the converted ResNeSt are.
    """
    path = folder / f"{model}-b{batch}-f{16 if half else 32}.xml"
    graph = load(model, weights=weights, image=image)
    (source,) = export(graph, folder / model, "onnx")
    (kind,) = graph.inputs.values()
    shape = [str(size) for size in (batch, *kind.shape[1:])]
    means, scales = [",".join(map(str, numbers)) for numbers in PIXELS[model]] if pixels else ["", ""]
    words = [str(source), str(path), "half" if half else "single", means, scales, "logits" * logits, *shape]
    python = str(interpreter("openvino"))
    done = subprocess.run([python, "-c", CODE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return path
