"""PyTorch modules that take token ids and masks, with planted bugs. Imported by PyTorch's Python."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

WORDS = 50


class Block(nn.Module):
    """A transformer's block: attention under a mask, then two dense layers, each behind a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.parts, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x: Any, seen: Any) -> Any:
        n, t, c = x.shape
        q, k, v = self.parts(self.norm1(x)).view(n, t, 3, self.heads, c // self.heads).unbind(2)
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * (c // self.heads) ** -0.5
        scores = torch.where(seen[:, None], scores, float("-inf"))
        found = torch.softmax(scores, -1) @ v.transpose(1, 2)
        x = x + self.out(found.transpose(1, 2).reshape(n, t, c))
        return x + self.narrow(functional.gelu(self.wide(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """A decoder: which token sees which is computed of the ids, by comparisons; 0 is padding.

    shift: is added to the ids; off: to the last position that a token sees. Both are 0 in a sound module.
    """

    def __init__(self, width: int = 16, length: int = 8, shift: int = 0, off: int = 0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.tokens, self.places = nn.Embedding(WORDS, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([Block(width, 2) for _ in range(2)])
        self.norm = nn.LayerNorm(width)
        self.shift, self.off = shift, off

    def forward(self, ids: Any) -> Any:
        real = ids != 0
        places = (torch.cumsum(real.long(), 1) - 1).clamp(min=0)
        ids = ids + self.shift
        seen = (places[:, None, :] <= places[:, :, None] + self.off) & real[:, None, :]
        seen = seen | torch.eye(ids.shape[1], dtype=torch.bool)
        x = self.tokens(ids) + self.places(places)
        for block in self.blocks:
            x = block(x, seen)
        logits = self.norm(x) @ self.tokens.weight.T
        return logits, logits.argmax(-1), places


class Bert(nn.Module):
    """An encoder of ids, an attention mask and kinds of tokens; a dict of values, and the first token's."""

    def __init__(self, width: int = 16, length: int = 8) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.words, self.kinds = nn.Embedding(WORDS, width, padding_idx=0), nn.Embedding(2, width)
        self.places = nn.Embedding(length, width)
        self.register_buffer("numbers", torch.arange(length)[None])
        self.norm, self.drop = nn.LayerNorm(width, eps=1e-12), nn.Dropout(0.1)
        self.blocks = nn.ModuleList([Block(width, 4) for _ in range(2)])
        self.pooler = nn.Linear(width, width)

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        t = input_ids.shape[1]
        x = self.words(input_ids) + self.places(self.numbers[:, :t]) + self.kinds(token_type_ids)
        x = self.drop(self.norm(x))
        seen = attention_mask[:, None, :].bool().expand(-1, t, -1)
        for block in self.blocks:
            x = block(x, seen)
        counts = attention_mask.sum(1)
        mean = (x * attention_mask[..., None]).sum(1) / counts[:, None].clamp(min=1)
        return {"hidden": x, "pooled": torch.tanh(self.pooler(x[:, 0])), "mean": mean, "counts": counts}


class Clip(nn.Module):
    """Takes the value at the place of the largest id: a gather by computed places."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.tokens, self.head = nn.Embedding(WORDS, width), nn.Linear(width, 4)

    def forward(self, ids: Any) -> Any:
        x = functional.relu(self.tokens(ids))
        return self.head(x[torch.arange(x.shape[0]), ids.argmax(-1)])


class Pixels(nn.Module):
    """An image of bytes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Any) -> Any:
        return functional.relu(self.conv(image.float() / 255.0)).mean((2, 3))


class Returns(nn.Module):
    """Returns one value twice, an input, and a named tuple; counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.head = nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Any) -> Any:
        self.calls += 1
        y = self.head(x)
        return {"b": y, "given": x, "pair": Pair(y.relu(), y), "none": None}


class Pair(NamedTuple):
    """What one module of a library may return."""

    first: Any
    second: Any


class Waits(nn.Module):
    """The data decide how often the layer runs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.head = nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        while x.abs().max() > 0.1:
            x = self.head(x) * 0.2
        return x
