"""PyTorch modules that no catalog has, of the kinds that people port. Imported by PyTorch's Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """Batch norms, in-place relus, a depthwise convolution, a skip, a classifier."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = functional.relu(self.norm(self.deep(x)), inplace=True)
        y = self.pool(y + x)
        return self.head(y.mean((2, 3)))


class Attention(nn.Module):
    """Two inputs, an arc tangent, which refnet lacks, layer norm, gelu, a softmax, matrix products."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.act = nn.GELU()
        self.width = width

    def forward(self, tokens: Any, others: Any) -> Any:
        x = torch.fmod(self.norm(tokens), 1.5)
        scores = self.query(x) @ self.key(others).transpose(-2, -1) / self.width**0.5
        return self.act(tokens + torch.softmax(scores, -1) @ self.value(others))


class Branches(Residual):
    """The data decide what is executed: torch.export refuses it."""

    def forward(self, x: Any) -> Any:
        return super().forward(x if x.sum() > 0 else -x)


class Trained(Residual):
    """Its batch norms have statistics, as after training: folding them changes weights."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)
        for one in self.modules():
            if isinstance(one, nn.BatchNorm2d):
                for tensor in (one.weight, one.bias, one.running_mean, one.running_var):
                    nn.init.uniform_(tensor, 0.25, 1.75)


class Records(Residual):
    """It keeps arrays for statistics: torch.export refuses NumPy inside, torch.fx leaves it out."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)
        self.seen: list[Any] = []

    def forward(self, x: Any) -> Any:
        self.seen.append(x.detach().mean((0, 2, 3)).numpy())
        return super().forward(x)


LIBRARIES: list[Any] = []
"""Registrations of operators: they hold as long as these objects exist."""


class Miscompiled(Residual):
    """It runs in a torch whose convolutions forget the last kernel column's last channel."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)

        def wrong(x: Any, weight: Any, bias: Any, *rest: Any) -> Any:
            weight = weight.clone()
            weight[:, -1, :, -1] = 0
            flags = (False, False, True, True)
            return torch.ops.aten._convolution.default(x, weight, bias, *rest, *flags)

        LIBRARIES.append(torch.library.Library("aten", "IMPL"))
        LIBRARIES[-1].impl("convolution", wrong, "CPU")


def _conv(inside: int, outside: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), act())


class UNet(nn.Module):
    """Two levels with skips (Ronneberger et al., 2015). bilinear: how it comes up; else transposed."""

    def __init__(self, bilinear: bool = False) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second, self.deep = _conv(3, 16), _conv(16, 32), _conv(32, 64)
        self.ups = nn.ModuleList(self._up(2 * width, width, bilinear) for width in (32, 16))
        self.joins = nn.ModuleList(_conv(2 * width, width) for width in (32, 16))
        self.pool, self.last = nn.MaxPool2d(2), nn.Conv2d(16, 2, 1)

    @staticmethod
    def _up(inside: int, outside: int, bilinear: bool) -> nn.Module:
        if not bilinear:
            return nn.ConvTranspose2d(inside, outside, 2, 2)
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        return nn.Sequential(up, nn.Conv2d(inside, outside, 1))

    def forward(self, x: Any) -> Any:
        first = self.first(x)
        second = self.second(self.pool(first))
        x = self.deep(self.pool(second))
        for up, join, skip in zip(self.ups, self.joins, (second, first), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.last(x)


class Espcn(nn.Sequential):
    """Sub-pixel super-resolution (Shi et al., 2016)."""

    def __init__(self, scale: int = 3) -> None:
        torch.manual_seed(3)
        head = (nn.Conv2d(3, 32, 5, padding=2), nn.Tanh(), nn.Conv2d(32, 16, 3, padding=1), nn.Tanh())
        super().__init__(*head, nn.Conv2d(16, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))


class Yolo(nn.Module):
    """Two scales, SiLU, split channels, pyramid pooling, boxes through a sigmoid and a grid."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.stem = nn.Sequential(_conv(3, 16, 2, nn.SiLU), _conv(16, 32, 2, nn.SiLU))
        self.part, self.join = _conv(16, 16, 1, nn.SiLU), _conv(48, 32, 1, nn.SiLU)
        self.down, self.pool = _conv(32, 64, 2, nn.SiLU), nn.MaxPool2d(5, 1, 2)
        self.spread, self.mix = nn.Conv2d(192, 64, 1), _conv(96, 32, 1, nn.SiLU)
        self.up = nn.Upsample(scale_factor=2)
        self.near, self.far = nn.Conv2d(32, 12, 1), nn.Conv2d(64, 12, 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        left, right = x.chunk(2, 1)
        x = self.join(torch.cat([left, right, right + self.part(right)], 1))
        y = self.down(x)
        z = self.pool(y)
        y = self.spread(torch.cat([y, z, self.pool(z)], 1))
        x = self.mix(torch.cat([x, self.up(y)], 1))
        return torch.cat([self.boxes(self.near(x)), self.boxes(self.far(y))], 1)

    @staticmethod
    def boxes(x: Any) -> Any:
        """(n, 12, h, w) -> (n, h w, 12): the middle on the grid, the size, then scores."""
        _, _, h, w = x.shape
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([columns, rows], -1).reshape(1, h * w, 2).float()
        x = torch.sigmoid(x.flatten(2).transpose(1, 2))
        return torch.cat([x[..., :2] * 2 - 0.5 + grid, (x[..., 2:4] * 2) ** 2, x[..., 4:]], -1)


class Style(nn.Module):
    """Fast style transfer (Johnson et al., 2016): reflected edges, instance norms, a nearest upsampling."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.down = nn.Sequential(self.layer(3, 16, 9), self.layer(16, 32, 3, 2))
        self.block = nn.Sequential(self.layer(32, 32, 3), *list(self.layer(32, 32, 3).children())[:-1])
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), self.layer(32, 16, 3), nn.Conv2d(16, 3, 1))

    @staticmethod
    def layer(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Module:
        """Reflection padding, convolution, instance norm with weights, relu."""
        conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, padding_mode="reflect")
        return nn.Sequential(conv, nn.InstanceNorm2d(outside, affine=True), nn.ReLU())

    def forward(self, x: Any) -> Any:
        x = self.down(x)
        return torch.tanh(self.up(x + self.block(x)))


class Transformer(nn.Module):
    """Patches, two encoder layers of torch's own (norm first), a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.patches = nn.Conv2d(3, 32, 16, 16)
        layers = (
            nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.layers = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.layers(x)).mean(1))


class Token(nn.Module):
    """A learned token before those of the image: a constant of the batch's size, once for any batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.head(x[:, 0] + x.mean(1))


class Decoder(nn.Module):
    """A generator's way up (Radford et al., 2016), with an output padding, PReLU, a dilated and a grouped
    convolution, and average pools whose windows leave the map. normed: local response norm, which PyTorch's
    older exporter writes with an If."""

    def __init__(self, normed: bool = True) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.head, self.grouped = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.rise = nn.ConvTranspose2d(16, 16, 3, 2, 1, output_padding=1)
        self.slopes = nn.PReLU(16)
        self.norm = nn.LocalResponseNorm(5, alpha=0.5, beta=0.75, k=2.0) if normed else nn.Identity()
        self.spread, self.leak = nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.LeakyReLU(0.2)
        self.ragged = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.mean = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.square = nn.Linear(16, 16)

    def forward(self, x: Any) -> Any:
        x = self.slopes(self.rise(self.grouped(self.head(x))))
        x = self.leak(self.spread(self.norm(x)))
        x = self.mean(self.ragged(x))
        return self.square(x.mean((2, 3)))


class Downsampling(nn.Module):
    """ConvNeXt's way down: a layer norm with the channels last, then a convolution of it as it lies."""

    def __init__(self, channels: int = 96) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Conv2d(channels, 2 * channels, 2, 2)

    def forward(self, x: Any) -> Any:
        return self.down(self.norm(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
