"""Networks of torchvision and timm by name, with random weights. Imported by the Python of `.venv-zoo`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.crosscheck import foreign_modules

OWN: dict[str, Any] = {
    "unet": foreign_modules.UNet,
    "unet_bilinear": lambda: foreign_modules.UNet(True),
    "espcn": foreign_modules.Espcn,
    "yolo_like": foreign_modules.Yolo,
    "style_transfer": foreign_modules.Style,
    "small_transformer": foreign_modules.Transformer,
    "decoder": foreign_modules.Decoder,
    "generator": lambda: foreign_modules.Decoder(normed=False),
}
DECLARED = torch.library.Library("torchvision", "FRAGMENT")


def torchvision() -> Any:
    """The package. Its compiled operators are for another build of torch, and no network here calls them;
    two of them must exist for its Python files to be imported."""
    if not hasattr(torch.ops.torchvision, "nms"):
        DECLARED.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        DECLARED.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    return torchvision


class First(nn.Module):
    """A network that answers with a dict or a tuple, and the first of it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        found = self.model(x)
        return next(iter(found.values())) if isinstance(found, dict) else found[0]


def network(source: str, name: str, size: int, flash: bool = True) -> nn.Module:
    """source: "torchvision", "timm" or "own". size: the side of its input, for those that ask. flash: whether
    attention may be computed by one kernel that never has the whole softmax; else product by product.

    Weights are torch's own random ones from seed 0; statistics of batch norms, and scales that begin as
    nearly nothing, are drawn, so that no layer is the identity.
    """
    torch.backends.cuda.enable_flash_sdp(flash)  # of the CPU's kernels, too
    torch.manual_seed(0)
    model = _made(source, name, size).eval()
    for one in model.modules():
        if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.running_mean is not None:
            nn.init.normal_(one.running_mean, 0.0, 0.1)
            nn.init.uniform_(one.running_var, 0.5, 2.0)
    for key, weight in model.named_parameters():
        if key.rsplit(".", 1)[-1] in ("gamma", "layer_scale", "gamma_1", "gamma_2", "gamma1", "gamma2"):
            nn.init.uniform_(weight, 0.2, 0.5)
        elif weight.ndim > 1 and not weight.any():  # a classifier that begins as zero
            nn.init.normal_(weight, 0.0, 0.02)
    return model


def _made(source: str, name: str, size: int) -> Any:
    if source == "own":
        return OWN[name]()
    package = torchvision()
    if source == "torchvision":
        more: dict[str, Any] = {}
        if name.startswith("vit_"):
            more = {"image_size": size}
        if name in ("googlenet", "inception_v3"):
            more = {"init_weights": False, "aux_logits": False}
        if hasattr(package.models.segmentation, name):
            return First(getattr(package.models.segmentation, name)(weights_backbone=None))
        return getattr(package.models, name)(**more)
    import timm

    try:
        return timm.create_model(name, img_size=size)
    except TypeError:
        return timm.create_model(name)
