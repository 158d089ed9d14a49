"""PyTorch modules that transpose-convolve, interpolate, shuffle and slice. Imported by PyTorch's Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Unet(nn.Module):
    """One level down and up again, a skip beside it. up: how it comes up."""

    def __init__(self, up: str = "transposed", output_padding: int = 1, align_corners: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        if up == "transposed":
            self.up: nn.Module = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=output_padding, groups=2)
        else:
            self.up = nn.Upsample(scale_factor=2, mode=up, align_corners=align_corners)
        self.last = nn.ConvTranspose2d(16, 2, 2, 2)

    def forward(self, x: Any) -> Any:
        x = functional.relu(self.down(x))
        y = self.up(functional.relu(self.deep(functional.max_pool2d(x, 2))))
        return self.last(torch.cat([x, y], 1))


class Bilinear(Unet):
    """By bilinear interpolation."""

    def __init__(self) -> None:
        super().__init__("bilinear")


class Aligned(Unet):
    """By bilinear interpolation, corners aligned."""

    def __init__(self) -> None:
        super().__init__("bilinear", align_corners=True)


class Bicubic(Unet):
    """By bicubic interpolation."""

    def __init__(self) -> None:
        super().__init__("bicubic")


class Odd(nn.Module):
    """To sizes that are no whole multiples, up and down."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Any) -> Any:
        x = self.conv(x)
        y = functional.interpolate(x, size=(23, 9), mode="bilinear")
        z = functional.interpolate(x, scale_factor=1.7, mode="bilinear", align_corners=True)
        w = functional.interpolate(x, size=(5, 31), mode="bicubic")
        return y.mean((2, 3)) + z.mean((2, 3)) + w.mean((2, 3))


class Shuffled(nn.Module):
    """Sub-pixel convolution, and back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.back = nn.Conv2d(12, 4, 1)

    def forward(self, x: Any) -> Any:
        x = functional.pixel_shuffle(self.conv(x), 2)
        return self.back(functional.pixel_unshuffle(functional.relu(x), 2))


class Line(nn.Module):
    """One dimension: convolutions, pools, up again."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv1d(3, 8, 5, 2, 2)
        self.deep = nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.up = nn.ConvTranspose1d(8, 4, 4, 2, 1)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool1d(functional.relu(self.first(x)), 3, 2, 1)
        x = functional.avg_pool1d(self.deep(x), 2, 1, 1)
        return functional.interpolate(self.up(x), scale_factor=2, mode="linear")


class Volume(nn.Module):
    """Three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first = nn.Conv3d(2, 6, 3, 1, 1)
        self.deep = nn.Conv3d(6, 6, (1, 3, 3), (1, 2, 1), (0, 1, 2), (1, 1, 2), groups=2)
        self.up = nn.ConvTranspose3d(6, 3, 2, 2)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool3d(functional.relu(self.first(x)), 2)
        x = functional.avg_pool3d(self.deep(x), 2, 1, 1)
        return functional.interpolate(self.up(x), scale_factor=2, mode="trilinear")


class Places(nn.Module):
    """Steps, a reversal, an index, copies along an axis, repetitions, cuts and paddings."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Any) -> Any:
        x = self.conv(x)
        focus = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2]], 1)
        y = torch.flip(focus, [3])[:, torch.tensor([4, 0, 2])]
        row = y[:, :, :1].expand(-1, -1, y.shape[2], -1).repeat(1, 1, 2, 1)
        around = functional.pad(row, (1, 2, 0, 1), "reflect") + functional.pad(row, (1, 2, 0, 1), "replicate")
        return functional.pad(around, (-1, 1, 1, -2))[:, 0]
