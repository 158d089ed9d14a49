"""Worker for the ONNX crosschecks: PyTorch's own exporters on the official ResNeSt-50."""

from __future__ import annotations

from typing import Any


def export(request: Any, arrays: Any, emit: Any) -> Any:
    """Export resnest.torch:resnest50 with random weights.

    request: path, dynamo, opset, seed, free (whether the batch is), fold (of the older exporter). The running
    statistics are drawn too, so that no batch norm is nearly the identity.
    """
    import warnings

    import torch
    from resnest.torch import resnest50

    warnings.simplefilter("ignore")
    torch.manual_seed(request["seed"])
    model = resnest50(pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    x = torch.zeros(1, 3, 224, 224)
    free: dict[str, Any] = {}
    if request["free"]:
        free = {"dynamic_axes": {"data": {0: "batch"}}}
        if request["dynamo"]:
            free = {"dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}}
    more: dict[str, Any] = {"external_data": False, "verbose": False}
    if not request["dynamo"]:
        more = {"do_constant_folding": request["fold"]}
    torch.onnx.export(
        model,
        (x,),
        request["path"],
        dynamo=request["dynamo"],
        input_names=["data"],
        opset_version=request["opset"],
        **free,
        **more,
    )
    return {"torch": torch.__version__}, {}


COMMANDS = {"export": export}
