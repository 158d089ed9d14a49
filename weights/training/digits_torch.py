"""Trains the small ResNeSt on the digits in PyTorch and saves its state dict (weights/resnest-digits.pth).

    python weights/training/digits_torch.py train digits.npz weights/resnest-digits.pth
    python weights/training/digits_torch.py evaluate digits.npz weights/resnest-digits.pth logits.npy

Needs torch, the official `resnest` package (its blocks are used as they are) and NumPy; digits.npz is
written by digits_data.py. Runs on the CPU with fixed seeds and deterministic algorithms.
"""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from digits_data import Digits, read_npz, score, shifted, write_npy

STEM_WIDTH = 8
PLANES = (8, 16, 32)
BLOCKS = (1, 2, 1)
CLASSES = 10

SEED = 20
EPOCHS = 40
BATCH = 64
LEARNING_RATE = 0.1
REACH = 3  # pixels of the 32 x 32 tensor that an image is shifted by, at most


def network() -> Any:
    """The network: as resnest.torch.resnet.ResNet, but grey input, three stages and few planes.

    ResNet.__init__ fixes 3 input channels, four stages and their planes; so the modules are put together
    here, under the official names and in the official order, and the stages by the official _make_layer.
    """
    from resnest.torch.resnet import (  # type: ignore[import-not-found,unused-ignore]
        Bottleneck,
        GlobalAvgPool2d,
        ResNet,
    )
    from torch import nn

    w = STEM_WIDTH
    stem = nn.Sequential(
        nn.Conv2d(1, w, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(w),
        nn.ReLU(inplace=True),
        nn.Conv2d(w, w, kernel_size=3, stride=1, padding=1, bias=False),
        nn.BatchNorm2d(w),
        nn.ReLU(inplace=True),
        nn.Conv2d(w, 2 * w, kernel_size=3, stride=1, padding=1, bias=False),
    )
    options = SimpleNamespace(
        inplanes=2 * w,
        radix=2,
        cardinality=1,
        bottleneck_width=64,
        avd=True,
        avd_first=False,
        avg_down=True,
        rectified_conv=False,
        rectify_avg=False,
        last_gamma=False,
    )
    stages = OrderedDict()
    for i, (planes, blocks) in enumerate(zip(PLANES, BLOCKS, strict=True), 1):
        stages[f"layer{i}"] = ResNet._make_layer(
            options,
            Bottleneck,
            planes,
            blocks,
            stride=1 if i == 1 else 2,
            norm_layer=nn.BatchNorm2d,
            is_first=i > 1,
        )
    return nn.Sequential(
        OrderedDict(
            conv1=stem,  # (n, 16, 16, 16)
            bn1=nn.BatchNorm2d(2 * w),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(kernel_size=3, stride=2, padding=1),  # (n, 16, 8, 8)
            **stages,  # (n, 32, 8, 8), (n, 64, 4, 4), (n, 128, 2, 2)
            avgpool=GlobalAvgPool2d(),  # (n, 128)
            fc=nn.Linear(options.inplanes, CLASSES),
        )
    )


def train(digits: Digits) -> Any:
    """Stochastic gradient descent with momentum, one cosine of the learning rate, images shifted a little."""
    import torch

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(SEED)
    model = network()
    data, label = digits.data[~digits.test], torch.from_numpy(digits.label[~digits.test])
    steps = len(data) // BATCH  # per epoch; the rest of an epoch's shuffled images is left out
    descent = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(descent, EPOCHS * steps)
    loss = torch.nn.CrossEntropyLoss()
    for epoch in range(EPOCHS):
        model.train()
        order = rng.permutation(len(data))
        moved = torch.from_numpy(shifted(data, rng.integers(-REACH, REACH + 1, (len(data), 2)), REACH))
        total = 0.0
        for step in range(steps):
            chosen = torch.from_numpy(order[step * BATCH : (step + 1) * BATCH])
            value = loss(model(moved[chosen]), label[chosen])
            descent.zero_grad()
            value.backward()
            descent.step()
            schedule.step()
            total += value.item()
        print(
            f"epoch {epoch + 1}: loss {total / steps:.4f}, {score(digits, logits(model, digits))}", flush=True
        )
    return model


def logits(model: Any, digits: Digits) -> npt.NDArray[np.float32]:
    """(n, 10): what the network says of all images, by the running statistics, in batches of 60."""
    import torch

    model.eval()
    with torch.no_grad():
        batches = torch.from_numpy(digits.data).split(60)
        found: npt.NDArray[np.float32] = torch.cat([model(batch) for batch in batches]).numpy()
    return found


def main() -> None:
    """The command line."""
    import torch

    parser = argparse.ArgumentParser(description="Train or evaluate the small ResNeSt on the digits.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    evaluation = commands.add_parser("evaluate")
    for command in training, evaluation:
        command.add_argument("digits", type=Path, help="the .npz that digits_data.py wrote")
        command.add_argument("weights", type=Path, help="the state dict (.pth) to write or read")
        command.add_argument("--threads", type=int, default=2)
    evaluation.add_argument("output", type=Path, help="write the logits of all images here (.npy)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    digits = read_npz(options.digits)
    if options.command == "train":
        model = train(digits)
        unfinished = options.weights.with_suffix(".part")
        torch.save(model.state_dict(), unfinished)
        os.replace(unfinished, options.weights)
    else:
        model = network()
        model.load_state_dict(torch.load(options.weights, weights_only=True))
        write_npy(options.output, logits(model, digits))
        print(score(digits, logits(model, digits)))


if __name__ == "__main__":
    main()
