"""Every command on anybody's torch module: order-free, reveal, golden, explain; and from Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.orders import Chain, walk
from refnet.verification.capture import open_capture
from tests.crosscheck.conftest import interpreter
from tests.helpers.bits import floats, same_bits

pytestmark = pytest.mark.crosscheck

ROOT = Path(__file__).parents[2]
MODULES = "tests.crosscheck.foreign_modules"


def command(word: str, name: str, *arguments: str, folder: Path) -> int:
    words = [word, "torch", f"{MODULES}:{name}", "--path", str(ROOT), "--python", str(interpreter("torch"))]
    return main([*words, *arguments, "-o", str(folder)])


@pytest.fixture(scope="module")
def caps(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("module") / "caps"
    assert command("capture", "Residual", "--image", "16,16", folder=folder) == 0
    return folder


def test_order_free_runs_the_modules_own_calls(tmp_path, capsys):
    assert command("capture", "Residual", "--image", "16,16", "--order-free", folder=tmp_path / "c") == 0
    said = capsys.readouterr().out
    assert "what was run: 4 calls of your module, as torch.export sees it, each alone" in said
    assert "each of these has the exact result's bits" in said
    made = open_capture(tmp_path / "c")
    assert made.manifest is not None
    assert list(made.names) == ["conv2d", "conv2d_1", "mean", "linear"]
    assert made.manifest.reference.mode == "single calls of the module"
    assert made.manifest.reference.flags["order-free"] == "0"


def test_a_call_that_computes_something_else_is_found(tmp_path, capsys):
    """A torch whose convolutions leave out a term: no rounding can explain it."""
    assert command("capture", "Miscompiled", "--image", "16,16", "--order-free", folder=tmp_path / "c") == 1
    said = capsys.readouterr().out
    for name in ("conv2d", "conv2d_1"):
        assert f"{name}: not the exact result, though no sum in it can round" in said
    assert "linear: not" not in said


def test_reveal_makes_a_book_that_replays_the_capture(caps, tmp_path, capsys):
    book = tmp_path / "b.json"
    code = command("reveal", "Residual", "--image", "16,16", folder=book)
    found = refnet.read_book(book)
    unknown = {name for one in found.unconfirmed for name in one.nodes}
    assert unknown <= {"mean"}
    assert code == (1 if unknown else 0)
    assert (found.reference.framework, found.reference.mode) == ("torch", "exported")
    verified = refnet.verify(caps, book=book)
    left = {one.name for one in verified.nodes if one.verdict == "rounding"}
    assert left <= unknown
    assert (verified.counts["defect"], verified.exit_code) == (0, 0)
    before = {one.name for one in refnet.verify(caps).nodes if one.verdict == "rounding"}
    assert before > left  # the book does replay what plain order does not
    assert not [one for one in verified.notes if "the book is of" in one]
    capsys.readouterr()


def test_a_node_is_asked_with_its_tensors_as_they_lie_in_the_module(tmp_path, capsys):
    """Channels last in memory, another order of the sum; also where the batch may vary."""
    book = tmp_path / "b.json"
    assert command("reveal", "Downsampling", "--image", "32,32", folder=book) == 0
    found = refnet.read_book(book)
    assert found.unconfirmed == ()
    (down,) = [recipe for key, recipe in found.recipes.items() if "kernel=(2, 2)" in key]
    (part,) = down.parts
    orders = [one.terms.indices() for one in walk(part.do.expr) if isinstance(one, Chain)]
    assert orders[0][:3] == [0, 4, 8]  # of one place of the kernel all channels
    capsys.readouterr()


def test_reveal_goes_on_behind_what_refnet_cannot_judge(tmp_path, capsys):
    words: list[str] = []
    for name, shape in {"tokens": (2, 5, 8), "others": (2, 6, 8)}.items():
        np.save(tmp_path / f"{name}.npy", floats(shape, name))
        words += ["--input", f"{name}={tmp_path / name}.npy"]
    command("reveal", "Attention", *words, folder=tmp_path / "b.json")
    book = refnet.read_book(tmp_path / "b.json")
    unknown = {name for one in book.unconfirmed for name in one.nodes}
    assert "fmod" in unknown
    assert not unknown & {"layer_norm", "softmax", "div", "add_40"}
    assert book.reference.batch == 2
    capsys.readouterr()


def test_reveal_of_another_model_takes_no_input(tmp_path, capsys):
    words = ["reveal", "torch", "resnest-digits", "--input", "seed:0", "-o", str(tmp_path / "b.json")]
    assert main([*words, "--python", str(interpreter("torch"))]) == 2
    assert "--input seed:0: reveal makes its own inputs" in capsys.readouterr().err


def test_golden_and_explain_take_the_captures_folder(caps, tmp_path, capsys):
    golden = caps / "golden.json"
    assert main(["golden", str(caps), "--input", str(caps / "x.npy"), "-o", str(golden)]) == 0
    assert main(["golden", "--check", str(golden)]) == 0
    values = json.loads(golden.read_text())["values"]
    assert {*open_capture(caps).names} <= {*values}
    assert main(["explain", str(caps), "linear", "--at", "0,3"]) == 0
    said = capsys.readouterr().out
    assert "in the capture" in said
    one = refnet.explain(caps, "conv2d", (0, 1, 2, 3))
    assert one.found == open_capture(caps).value("conv2d")[0, 1, 2, 3]
    alone = refnet.explain(caps, "conv2d", (0, 1, 2, 3), inputs="seed:0")
    assert alone.found is None
    assert alone.golden == one.golden


def test_where_torch_export_refuses_torch_fx_is_asked(tmp_path, capsys):
    assert command("capture", "Records", "--image", "16,16", folder=tmp_path / "c") == 0
    said = capsys.readouterr().err
    assert (
        "Records is captured as torch.fx records it: torch.export refuses it (RuntimeError: .numpy()" in said
    )
    made = open_capture(tmp_path / "c")
    assert made.manifest is not None
    flags = made.manifest.reference.flags
    assert (flags["exported by"], flags["other bits than eager"]) == ("torch.fx", "0")
    assert ".numpy()" in flags["refused by torch.export"]
    found = refnet.verify(tmp_path / "c")
    assert (found.judged, found.counts["defect"], found.exit_code) == (10, 0, 0)
    assert command("capture", "Branches", "--image", "16,16", folder=tmp_path / "d") == 0
    hooks = open_capture(tmp_path / "d").manifest
    assert hooks is not None
    assert "control flow" in hooks.reference.flags["refused by torch.fx"]
    assert "refused by torch.export" in hooks.reference.flags
    capsys.readouterr()


OTHERS = """
import torch

class Classes(torch.nn.Module):
    def forward(self, x):
        y = torch.relu(x)
        return y, y.argmax(1)

def number():
    return 3
"""


def test_integers_of_a_module_are_values(tmp_path, capsys):
    (tmp_path / "others_of_a_test.py").write_text(OTHERS)
    words = ["--path", str(tmp_path), "--python", str(interpreter("torch")), "--image", "4,4"]
    made = ["capture", "torch", "others_of_a_test:Classes", *words, "-o", str(tmp_path / "c")]
    assert main(made) == 0
    assert "left out" not in capsys.readouterr().err
    assert open_capture(tmp_path / "c").value("argmax", "int64").dtype == np.int64
    found = refnet.verify(tmp_path / "c")
    assert [(one.name, one.verdict) for one in found.nodes] == [("relu", "equal"), ("argmax", "equal")]
    assert main(["capture", "torch", "others_of_a_test:number", *words, "-o", str(tmp_path / "d")]) == 2
    assert "others_of_a_test:number returns int, not a torch.nn.Module" in capsys.readouterr().err


def test_the_readmes_example(tmp_path, capsys, monkeypatch):
    """README's commands as they are printed, on the module of the notebook.

    What is only rounding depends on the processor.
    """
    monkeypatch.setenv("REFNET_PYTHON_TORCH", str(interpreter("torch")))
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    notebook = (ROOT / "docs" / "notebooks" / "own-module.md").read_text(encoding="utf-8")
    (source,) = re.findall(r'^source = """(.*?)^"""', notebook, re.MULTILINE | re.DOTALL)
    (tmp_path / "own_network.py").write_text(source)
    lines = re.findall(
        r"^\$ refnet (.* own_network:network .*|verify caps(?: --book .*)?)$", readme, re.MULTILINE
    )
    commands = [line.split() for line in lines]
    assert [words[0] for words in commands] == ["capture", "verify", "reveal", "verify"]
    said = []
    for words in commands:
        assert main(words) in ((0, 1) if words[0] == "reveal" else (0,))
        said.append(capsys.readouterr().out.splitlines()[-1])
    printed = re.findall(r"^(20 values: 8 equal, .*), no defects \(", readme, re.MULTILINE)
    assert len(printed) == 2
    for line in (said[1], said[3]):
        assert re.match("20 values: 8 equal, .*, no defects", line)
    counts = [
        sum(map(int, re.findall(r"(\d+) (?:replayed|rounding)", line))) for line in (*printed, *said[1::2])
    ]
    assert counts == [12] * 4


SCRIPT = """
import json, sys
sys.path.append(sys.argv[1])
import numpy as np, torch
import refnet
from tests.crosscheck import foreign_modules as modules

folder = sys.argv[2]
residual = modules.Residual()
residual.train()
residual.norm.eval()
torch.set_num_threads(1)
x = torch.rand(3, 3, 16, 16)
first = refnet.capture_torch(residual, x, folder + "/one")
pair = (torch.rand(2, 5, 8), np.ones((2, 6, 8), np.float32))
two = refnet.capture_torch(modules.Attention(), pair, folder + "/two", dynamic_batch=True)
named = dict(others=pair[1], tokens=pair[0])
refnet.capture_torch(modules.Attention(), named, folder + "/named", dynamic_batch=False)
hooks = refnet.capture_torch(modules.Branches(), x, folder + "/hooks")
try:
    refnet.capture_torch(modules.Branches(), x, folder + "/none", dynamic_batch=True)
except refnet.InputError as error:
    refused = str(error)
try:
    refnet.capture_torch(residual.half(), x, folder + "/none")
except refnet.InputError as error:
    half = str(error)
with torch.inference_mode():
    own = modules.Residual().eval()(x).numpy()
print(json.dumps({
    "modes": [residual.training, residual.stem.training, residual.norm.training],
    "hooks": [len(one._forward_hooks) for one in residual.modules()],
    "threads": torch.get_num_threads(),
    "same": bool((refnet.open_capture(folder + "/one").value("linear") == own).all()),
    "refused": refused, "half": half, "mode": hooks.manifest.reference.mode,
}))
"""


def test_a_module_of_the_own_process(tmp_path):
    """refnet and torch in one process: the module, its modes and the threads are afterwards as they were."""
    python = interpreter("torch")
    words = [str(python), "-c", "import torch, os; print(os.path.dirname(os.path.dirname(torch.__file__)))"]
    site = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    words = [sys.executable, "-c", SCRIPT, site, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["modes"] == [True, True, False]
    assert not any(said["hooks"])
    assert (said["threads"], said["same"], said["mode"]) == (1, True, "eager")
    assert "torch cannot export tests.crosscheck.foreign_modules.Branches" in said["refused"]
    assert said["half"] == "module: stem.0.weight is torch.float16; refnet judges float32: .float()"
    assert not (tmp_path / "none").exists()
    found = refnet.verify(tmp_path / "one")
    assert (found.judged, found.counts["defect"], found.exit_code) == (10, 0, 0)
    for name, batch in (("two", "any batch"), ("named", "this batch")):
        made = open_capture(tmp_path / name)
        assert made.manifest is not None
        assert made.input("tokens").shape == (2, 5, 8)
        assert same_bits(made.input("others"), np.ones((2, 6, 8), np.float32))
        assert made.manifest.reference.flags["graph for"] == batch
        assert refnet.verify(tmp_path / name, allow=["fmod"]).exit_code == 0
    graph = refnet.load(tmp_path / "two" / "network.onnx")
    x = {"tokens": floats((7, 5, 8), "t"), "others": floats((7, 6, 8), "o")}
    assert graph.types({k: refnet.TensorType(v.shape) for k, v in x.items()})["gelu"].shape == (7, 5, 8)
