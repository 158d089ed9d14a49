"""PyTorch modules of the kinds that people write, for captures. Imported by PyTorch's Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two outputs, a function between modules, and one module used twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Any) -> Any:
        x = functional.relu(self.conv(x))
        x = x + 1
        x += 2
        return self.relu(self.relu(x)), x.amax(dim=(2, 3))


class Two(nn.Module):
    """Two inputs, cat, chunk, a dict of outputs, a view that no function makes; integers and half floats."""

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.block = Block(channels)
        self.tail = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.MaxPool2d(2))
        for weight in self.parameters():
            nn.init.constant_(weight, 0.5)

    def forward(self, left: Any, right: Any) -> Any:
        high, peak = self.block(left)
        joined = torch.cat([high, right], 1)
        first, _ = joined.chunk(2, 1)
        values, places = torch.max(first, 1)
        half = (values * self.scale).half()
        return {"tail": self.tail(joined), "peak": peak, "parts": (places, half, left[0])}


def fails(channels: int) -> nn.Module:
    """A module whose forward raises after some values."""
    module = Two(channels)
    module.tail = nn.Sequential(nn.Linear(3, 3))
    return module


class Dies(nn.Module):
    """A module that takes its process with it, after some values."""

    def forward(self, x: Any) -> Any:
        import os

        x = functional.relu(x) + 1
        os.kill(os.getpid(), 9)
        return x


class Random(nn.Module):
    """A module that gives other bits each time."""

    def forward(self, x: Any) -> Any:
        return functional.dropout(functional.relu(x), training=True)
