"""Checkpoints that PyTorch itself writes, and Gluon's structural names: right, or refused by name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from refnet.core.errors import UnsupportedError, WeightsError
from refnet.formats.torch.reader import read_checkpoint
from refnet.models.loading import load
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import same_bits

pytestmark = pytest.mark.crosscheck

NETS = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.more = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False))
        self.register_buffer("cache", torch.zeros(3), persistent=False)
    def forward(self, x):
        return self.more(self.bn1(self.conv1(x)))
"""
TORCH = """
import argparse, collections, datetime, sys
import numpy as np
import torch
from torch import nn
sys.path.insert(0, ".")
from nets import Small

torch.manual_seed(0)
net, ema = Small().eval(), Small().eval()
state = net.state_dict()
np.savez("state.npz", **{k: v.numpy() for k, v in state.items()})
np.savez("ema.npz", **{k: v.numpy() for k, v in ema.state_dict().items()})
optimizer = torch.optim.Adam(net.parameters())
net(torch.zeros(1, 3, 8, 8)).sum().backward()
optimizer.step()
state = {k: torch.from_numpy(v) for k, v in np.load("state.npz").items()}
net.load_state_dict(state)
date = datetime.date(2020, 1, 1)
args = argparse.Namespace(lr=0.1, path=collections.deque([1]), kinds={"a", 2}, date=date)
full = {"epoch": 3, "args": args, "optimizer": optimizer.state_dict(), "best": np.float64(0.5),
        "state_dict": net.state_dict(), "state_dict_ema": ema.state_dict()}
for legacy in (False, True):
    tail = "-legacy.pth" if legacy else ".pth"
    how = dict(_use_new_zipfile_serialization=not legacy)
    torch.save(net.state_dict(), "plain" + tail, **how)
    torch.save(full, "full" + tail, **how)
    torch.save(net, "whole" + tail, **how)
    torch.save({"model": net, "ema": ema, "epoch": 1}, "yolo" + tail, **how)
    torch.save(nn.DataParallel(net).state_dict(), "parallel" + tail, **how)
    torch.save(nn.DataParallel(net), "parallel-whole" + tail, **how)
    torch.save(torch.optim.swa_utils.AveragedModel(net).state_dict(), "averaged" + tail, **how)
    half = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    torch.save({"model": {"state_dict": half}}, "half" + tail, **how)
torch.save(net.state_dict() | {"f8": torch.zeros(2).to(torch.float8_e4m3fn)}, "f8.pth")
torch.save(net.state_dict() | {"z": torch.zeros(2, dtype=torch.complex64)}, "complex.pth")
torch.jit.save(torch.jit.script(net), "script.pt")
torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3, 8, 8)), "trace.pt")
torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 8, 8),)), "exported.pt2")
"""


def run(framework: str, script: str, folder: Path) -> None:
    """Run a script in the framework's own Python, in a folder."""
    command = [interpreter(framework), "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints that PyTorch 2.13 wrote."""
    folder = tmp_path_factory.mktemp("torch")
    (folder / "nets.py").write_text(NETS)
    run("torch", TORCH, folder)
    return folder


def agree(found: dict[str, np.ndarray], folder: Path, saved: str, prefix: str = "") -> None:
    with np.load(folder / f"{saved}.npz") as arrays:
        assert list(found) == [prefix + name for name in arrays]
        assert all(same_bits(found[prefix + name], array) for name, array in arrays.items())


@pytest.mark.parametrize("tail", [".pth", "-legacy.pth"])
def test_what_torch_saves_is_read(tail: str, written: Path) -> None:
    agree(read_checkpoint(written / f"plain{tail}").arrays, written, "state")
    full = read_checkpoint(written / f"full{tail}")
    assert (full.path, full.others) == ("state_dict", ("state_dict_ema",))
    agree(full.arrays, written, "state")
    agree(read_checkpoint(written / f"full{tail}", "state_dict_ema").arrays, written, "ema")
    whole = read_checkpoint(written / f"whole{tail}")
    assert whole.whole == "nets.Small"
    agree(whole.arrays, written, "state")
    agree(read_checkpoint(written / f"yolo{tail}").arrays, written, "state")
    agree(read_checkpoint(written / f"yolo{tail}", "ema").arrays, written, "ema")
    agree(read_checkpoint(written / f"parallel{tail}").arrays, written, "state", "module.")
    agree(read_checkpoint(written / f"parallel-whole{tail}").arrays, written, "state", "module.")
    averaged = read_checkpoint(written / f"averaged{tail}").arrays
    assert averaged.pop("n_averaged") == 0
    agree(averaged, written, "state", "module.")
    half = read_checkpoint(written / f"half{tail}")
    assert half.path == "model.state_dict"
    with np.load(written / "state.npz") as arrays:
        for name, array in arrays.items():
            kept = array.dtype.kind != "f"
            assert same_bits(
                half.arrays[name], array if kept else array.astype(np.float16).astype(np.float32)
            )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("script.pt", "is a TorchScript program"),
        ("trace.pt", "is a TorchScript program"),
        ("exported.pt2", "is an exported program"),
        ("f8.pth", "entry 'f8' at byte .* is of torch.float8_e4m3fn"),
        ("complex.pth", "entry 'z' at byte .* is of torch.ComplexFloatStorage"),
    ],
)
def test_what_is_not_read_is_named(name: str, message: str, written: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"{name}: {message}"):
        read_checkpoint(written / name)


MXNET = """
import json, sys
import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.gluon import nn

def conv():
    return nn.Conv2D(3, 3, padding=1, in_channels=3)

class Another(gluon.HybridBlock):
    # registered in another order than run
    def __init__(self, **more):
        super().__init__(**more)
        with self.name_scope():
            self.last = conv()
            self.first = conv()
    def hybrid_forward(self, F, x):
        return self.last(self.first(x))

class Made(gluon.HybridBlock):
    # made in the order of run, registered in another
    def __init__(self, **more):
        super().__init__(**more)
        with self.name_scope():
            first, last = conv(), conv()
            self.last, self.first = last, first
    def hybrid_forward(self, F, x):
        return self.last(self.first(x))

class Counted(gluon.HybridBlock):
    # attributes conv1, conv2; their own names are conv0, conv1
    def __init__(self, **more):
        super().__init__(**more)
        with self.name_scope():
            self.conv1, self.conv2 = conv(), conv()
    def hybrid_forward(self, F, x):
        return self.conv2(self.conv1(x))

class Chain(gluon.HybridBlock):
    def __init__(self, **more):
        super().__init__(**more)
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            with self.features.name_scope():
                for _ in range(3):
                    self.features.add(conv(), nn.BatchNorm(in_channels=3), nn.Activation("relu"))
            self.output = nn.Dense(5, in_units=192)
    def hybrid_forward(self, F, x):
        return self.output(self.features(x))

for kind in (Another, Made, Counted, Chain):
    mx.random.seed(0)
    net = kind()
    net.initialize(mx.init.Normal(0.1))
    net.hybridize()
    net(mx.nd.zeros((1, 3, 8, 8)))
    name = kind.__name__
    net.export(name)
    net.save_parameters(name + "-structural.params")
    parameters = net._collect_params_with_prefix()
    structure = {k: {"name": p.name, "shape": p.shape} for k, p in parameters.items()}
    json.dump(structure, open(name + "-s.json", "w"))
    np.savez(name + ".npz", **{p.name: p.data().asnumpy() for p in parameters.values()})
"""


def test_gluons_names_are_right_or_refused(tmp_path: Path) -> None:
    """Two convolutions of equal shape were matched by order: registered in another one, they were swapped."""
    run("mxnet", MXNET, tmp_path)
    derived = []
    for name in ("Another", "Made", "Counted", "Chain"):
        symbol, params = tmp_path / f"{name}-symbol.json", tmp_path / f"{name}-structural.params"
        with np.load(tmp_path / f"{name}.npz") as arrays:
            right = dict(arrays)
        assert set(json.loads((tmp_path / f"{name}-s.json").read_text())) != set(right)
        graph = load(symbol, weights=f"{params}?structure={tmp_path / name}-s.json", image=(8, 8))
        assert all(same_bits(graph.weights[n], a) for n, a in right.items())
        try:
            graph = load(symbol, weights=params, image=(8, 8))
        except WeightsError as error:
            assert "--structure FILE" in str(error)  # noqa: PT017
        else:
            derived.append(name)
            assert all(same_bits(graph.weights[n], a) for n, a in right.items())
    assert derived == ["Chain"]
