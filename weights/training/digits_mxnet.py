"""Trains the small octave SE-ResNet on the digits in MXNet and saves its checkpoint with MXNet.

    python weights/training/digits_mxnet.py train digits.npz weights/octave-se-resnet-digits start-symbol.json
    python weights/training/digits_mxnet.py evaluate digits.npz weights/octave-se-resnet-digits prob.npy

Needs mxnet 1.9.1 and NumPy; digits.npz is written by digits_data.py, the symbol by refnet's builder (see
README.md). The checkpoint is PREFIX-symbol.json and PREFIX-0000.params. Runs on the CPU with fixed seeds.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from digits_data import Digits, read_npz, score, shifted, write_npy

SEED = 20
EPOCHS = 40
BATCH = 64
LEARNING_RATE = 0.1
REACH = 3  # pixels of the 32 x 32 tensor that an image is shifted by, at most


def official(path: Path) -> Any:
    """The symbol in the file, in the form of the official checkpoints.

    Their sums are add_n and their last node is SoftmaxOutput `softmax`, which also gives the gradient of
    the cross entropy; refnet writes elemwise_add for a sum of two, and ends in softmax. Names stay.
    """
    import mxnet as mx

    document = json.loads(path.read_text(encoding="utf-8"))
    for node in document["nodes"]:
        if node["op"] == "elemwise_add":
            node |= {"op": "add_n", "attrs": {"num_args": "2"}}
    before = mx.sym.load_json(json.dumps(document)).get_internals()["classifier_output"]
    return mx.sym.SoftmaxOutput(before, name="softmax")


def train(symbol: Any, digits: Digits) -> Any:
    """Stochastic gradient descent with momentum, one cosine of the learning rate, images shifted a little.

    symbol: what `official` returns. Returns the trained mx.mod.Module.
    """
    import mxnet as mx

    mx.random.seed(SEED)
    rng = np.random.default_rng(SEED)
    data, label = digits.data[~digits.test], digits.label[~digits.test].astype(np.float32)
    steps = len(data) // BATCH  # per epoch; the rest of an epoch's shuffled images is left out
    module = mx.mod.Module(symbol)
    module.bind([("data", (BATCH, *data.shape[1:]))], [("softmax_label", (BATCH,))])
    shapes = symbol.infer_shape(data=(BATCH, *data.shape[1:]))[2]
    statistics = {
        name: mx.nd.zeros(shape) if name.endswith("_mean") else mx.nd.ones(shape)
        for name, shape in zip(symbol.list_auxiliary_states(), shapes, strict=True)
    }
    module.init_params(mx.init.Xavier("gaussian", "in", magnitude=2), aux_params=statistics)
    schedule = mx.lr_scheduler.CosineScheduler(EPOCHS * steps, LEARNING_RATE)
    options = {"learning_rate": LEARNING_RATE, "momentum": 0.9, "wd": 5e-4, "lr_scheduler": schedule}
    module.init_optimizer("local", "nag", options)
    for epoch in range(EPOCHS):
        order = rng.permutation(len(data))
        moved = shifted(data, rng.integers(-REACH, REACH + 1, (len(data), 2)), REACH)
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            batch = mx.io.DataBatch([mx.nd.array(moved[chosen])], [mx.nd.array(label[chosen])])
            module.forward(batch, is_train=True)
            module.backward()
            module.update()
        found = probabilities(digits, symbol, *module.get_params())
        print(f"epoch {epoch + 1}: {score(digits, found)}", flush=True)
    return module


def probabilities(digits: Digits, symbol: Any, arguments: Any, statistics: Any) -> npt.NDArray[np.float32]:
    """(n, 10): what the network says of all images, by the running statistics, in batches of 60."""
    import mxnet as mx

    shape = (60, *digits.data.shape[1:])
    executor = symbol.simple_bind(mx.cpu(), "null", data=shape)
    executor.copy_params_from(arguments, statistics)
    n = len(digits.data)
    whole = np.concatenate([digits.data, digits.data[: -n % 60]])  # the last batch is filled up
    batches = whole.reshape(-1, *shape)
    found = [executor.forward(data=mx.nd.array(batch))[0].asnumpy() for batch in batches]
    return np.concatenate(found)[:n]


def save(prefix: Path, module: Any) -> None:
    """Write PREFIX-symbol.json and PREFIX-0000.params by MXNet itself, each under its name when whole."""
    import mxnet as mx

    unfinished = prefix.with_name(prefix.name + ".part")
    mx.model.save_checkpoint(str(unfinished), 0, module.symbol, *module.get_params())
    for ending in ("-symbol.json", "-0000.params"):
        os.replace(f"{unfinished}{ending}", f"{prefix}{ending}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train or evaluate the small octave SE-ResNet on the digits."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    evaluation = commands.add_parser("evaluate")
    for command in training, evaluation:
        command.add_argument("digits", type=Path, help="the .npz that digits_data.py wrote")
        command.add_argument("prefix", type=Path, help="path and name of the checkpoint to write or read")
        command.add_argument("--threads", type=int, default=2)
    training.add_argument("symbol", type=Path, help="the network, a symbol.json")
    evaluation.add_argument("output", type=Path, help="write the probabilities of all images here (.npy)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # MXNet reads both when it is imported
    os.environ["MXNET_SUBGRAPH_BACKEND"] = "NONE"  # no fusion: every node by itself
    import mxnet as mx

    digits = read_npz(options.digits)
    if options.command == "train":
        save(options.prefix, train(official(options.symbol), digits))
    else:
        found = probabilities(digits, *mx.model.load_checkpoint(str(options.prefix), 0))
        write_npy(options.output, found)
        print(score(digits, found))


if __name__ == "__main__":
    main()
