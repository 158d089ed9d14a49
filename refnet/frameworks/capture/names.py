"""Who can be asked for a capture, and how each can execute a network."""

from __future__ import annotations

PLACES = {
    "torch": "torch",
    "mxnet": "mxnet",
    "onnxruntime": "onnx",
    "onnx-reference": "onnx",
    "openvino": "openvino",
}
"""What runs in a Python of its own -> the environment of .ci/environments.sh that has it (.venv-NAME)."""
LIVE = tuple(name for name in PLACES if name != "onnx-reference")
"""The frameworks that are captured, and asked how they add."""
FRAMEWORKS = (*LIVE, "refnet", "folder")
MODES = {
    "torch": ("eager", "exported"),
    "mxnet": ("monitor", "internals", "outputs"),
    "onnxruntime": ("disabled", "basic", "extended", "all", "outputs"),
    "openvino": ("internals", "compiled", "outputs"),
    "refnet": ("plain", "golden"),
    "folder": ("",),
}
"""Framework -> how it can execute a network; the first is what it does if nothing else is said."""
PRECISIONS = ("f32", "bf16", "f16")
"""What OpenVINO may round to inside, its INFERENCE_PRECISION_HINT; the first if nothing else is said."""


def variable(framework: str) -> str:
    """The environment variable that names the Python which has the framework.

    >>> variable("onnx-reference")
    'REFNET_PYTHON_ONNX_REFERENCE'
    """
    return f"REFNET_PYTHON_{framework.upper().replace('-', '_')}"
