"""Worker of foreign_networks.py and foreign_bugs.py: PyTorch's two exporters on a network of theirs."""

from __future__ import annotations

from typing import Any


def export(request: Any, arrays: Any, emit: Any) -> Any:
    """Export a network. request: root (of this repository), module (beside this file, whose `network` makes
    it), source, name, size, dynamo, path."""
    import sys
    import warnings
    from importlib import import_module

    import torch

    warnings.simplefilter("ignore")
    sys.path.insert(0, request["root"])
    model = import_module(f"tests.crosscheck.{request['module']}").network(
        request["source"], request["name"], request["size"]
    )
    x = torch.zeros(1, 3, request["size"], request["size"])
    more: dict[str, Any] = {"external_data": False, "verbose": False} if request["dynamo"] else {}
    opset = 20 if request["dynamo"] else 17
    torch.onnx.export(model, (x,), request["path"], dynamo=request["dynamo"], opset_version=opset, **more)
    return {"torch": torch.__version__}, {}


COMMANDS = {"export": export}
