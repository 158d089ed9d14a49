"""Who can be asked for a capture, and how each can execute a network."""

from __future__ import annotations

FRAMEWORKS = ("torch", "mxnet", "onnxruntime", "refnet", "folder")
MODES = {
    "torch": ("eager",),
    "mxnet": ("monitor", "internals", "outputs"),
    "onnxruntime": ("disabled", "basic", "extended", "all", "outputs"),
    "refnet": ("plain", "golden"),
    "folder": ("",),
}
"""Framework -> how it can execute a network; the first is what it does if nothing else is said."""
