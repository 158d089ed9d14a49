"""Networks of torchvision, timm and others' papers, with random weights: captured and verified.

    python -m tests.crosscheck.foreign_networks results.jsonl                  goes on where it was stopped
    python -m tests.crosscheck.foreign_networks results.jsonl --rows resnet18 deit_tiny_patch16_224
    python -m tests.crosscheck.foreign_networks results.jsonl --ways dynamo matched
    python -m tests.crosscheck.foreign_networks results.jsonl --summary

A network goes several ways:

    torch      as a module: `refnet capture torch package:callable`, then `refnet verify`
    legacy     the older exporter's .onnx: load, run plain, ONNX Runtime without optimisations, verify
    dynamo     the same of the newer exporter's
    matched    the module's capture, judged by the newer exporter's .onnx, whose names are others

One line of JSON per run. It needs `.venv-zoo` (`.ci/environments.sh zoo`) and `.venv-onnx`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import refnet
from refnet.core.errors import RefnetError
from refnet.frameworks.process import Worker
from tests.crosscheck.campaign import carried_on, lines
from tests.crosscheck.conftest import ROOT, interpreter

OWN = ("unet", "unet_bilinear", "espcn", "yolo_like", "style_transfer", "small_transformer")
OWN += ("decoder", "generator")
TORCHVISION = (
    *("convnext_tiny", "mobilenet_v3_small", "swin_t", "efficientnet_b0"),
    *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "mnasnet0_5"),
    *("regnet_x_400mf", "regnet_y_400mf", "squeezenet1_1", "densenet121", "googlenet", "inception_v3"),
    *("efficientnet_v2_s", "resnext50_32x4d", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"),
    *("swin_v2_t", "alexnet", "vgg11_bn", "deeplabv3_resnet50", "fcn_resnet50"),
)
TIMM = (
    *("deit_tiny_patch16_224", "ghostnet_100", "resnest14d", "seresnet18", "skresnet18", "res2net50_26w_4s"),
    *("hrnet_w18_small", "dla34", "repvgg_a0", "mobileone_s0", "semnasnet_075", "tf_efficientnet_lite0"),
    *("rexnet_100", "ese_vovnet19b_dw", "convmixer_768_32", "mixer_s32_224", "resmlp_12_224"),
    *("cait_xxs24_224",),
    *("poolformer_s12", "pvt_v2_b0", "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small", "fastvit_t8"),
    *("inception_next_atto", "efficientvit_b0", "levit_128s", "cspdarknet53", "nf_resnet26"),
    *("ecaresnet26t", "gcresnet33ts", "botnet26t_256", "xception41", "selecsls42b"),
    *("dpn68", "xcit_nano_12_p16_224"),
    *("tiny_vit_5m_224", "convnextv2_atto", "repghostnet_050", "mobilenetv4_conv_small", "lcnet_050"),
    *("coatnet_nano_rw_224", "vit_tiny_patch16_224", "crossvit_tiny_240", "eva02_tiny_patch14_224"),
)
LARGE = {"dm_nfnet_f0": "timm", "vit_b_16": "torchvision", "maxvit_t": "torchvision"}
SOURCES = {
    **dict.fromkeys(OWN, "own"),
    **dict.fromkeys(TORCHVISION, "torchvision"),
    **dict.fromkeys(TIMM, "timm"),
    **LARGE,
}
SIDES = {
    "alexnet": 224,
    "vgg11_bn": 224,
    "inception_v3": 96,
    "googlenet": 96,
    "levit_128s": 224,
    "pvt_v2_b0": 224,
    "maxvit_t": 224,
}
SIDES |= {
    "crossvit_tiny_240": 240,
    "eva02_tiny_patch14_224": 56,
    "coatnet_nano_rw_224": 224,
    "botnet26t_256": 256,
}
SIDES |= {"tiny_vit_5m_224": 224, "xception41": 96, "densenet121": 96, "swin_t": 224, "swin_v2_t": 64}
"""The side of a network's input where 64 is too small or not what its windows divide."""

WAYS = ("legacy", "torch", "dynamo", "matched")
COLUMNS = {
    "same bits": ("equal", "replayed"),
    "within the bound": ("rounding",),
    "not shown": ("missing",),
    "defects": ("defect",),
    "unjudged": ("unjudged",),
}
"""Head of a column -> the verdicts that it counts."""


@dataclass(frozen=True)
class Setting:
    """One run. route: one of WAYS; side: of the input."""

    network: str
    route: str
    side: int

    @property
    def key(self) -> str:
        return json.dumps([*vars(self).values()])


def settings(networks: Collection[str], ways: Sequence[str]) -> list[Setting]:
    """These ways of every network, one way after the other."""
    return [Setting(name, way, SIDES.get(name, 64)) for way in ways for name in networks]


def captured(setting: Setting, place: Path) -> int:
    """Capture the network into place/capture; the number of elements of plain's outputs (0: not asked)."""
    size = setting.side
    zoo = str(interpreter("torch" if setting.network in OWN else "zoo"))
    arguments = [SOURCES[setting.network], setting.network, size]
    if setting.route in ("torch", "matched"):
        refnet.capture(
            "torch",
            "tests.crosscheck.zoo_modules:network",
            place / "capture",
            arguments=arguments,
            paths=[str(ROOT)],
            image=(size, size),
            mode="exported",
            python=zoo,
        )
    if setting.route == "torch":
        return 0
    path = place / "network.onnx"
    request = dict(zip(("source", "name", "size"), arguments, strict=True))
    request |= {"root": str(ROOT), "module": "zoo_modules", "path": str(path)}
    request |= {"dynamo": setting.route != "legacy"}
    with Worker(Path(__file__).with_name("zoo_export_worker.py"), zoo, threads=1) as worker:
        worker.ask("export", request)
    if setting.route == "matched":
        return 0
    graph = refnet.load(path)
    elements = 0
    if not any(node.op.opaque for node in graph.nodes):
        data = {name: np.zeros((1, *kind.shape[1:]), np.float32) for name, kind in graph.inputs.items()}
        elements = sum(array.size for array in refnet.run(graph, data).values())
    refnet.capture("onnxruntime", path, place / "capture", python=str(interpreter("onnx")))
    return elements


def judged(setting: Setting) -> dict[str, Any]:
    """What a run's line says. failed: the message of what stopped it; else counts, and what is in the way."""
    begin = time.perf_counter()
    line: dict[str, Any] = {"key": setting.key, "setting": asdict(setting), "failed": ""}
    with tempfile.TemporaryDirectory(prefix="refnet-networks-") as place:
        try:
            line["plain elements"] = captured(setting, Path(place))
            line["seconds"] = [round(time.perf_counter() - begin, 1)]
            file = Path(place, "network.onnx") if setting.route == "matched" else None
            found = refnet.verify(Path(place, "capture"), file)
        except RefnetError as error:
            said = str(error).replace(place, "DIR").replace(str(ROOT), "ROOT")
            return {**line, "failed": f"{type(error).__name__}: {said[:400]}"}
        made = refnet.open_capture(Path(place, "capture"))
        names = [one.value for one in found.outputs]
        if file is not None:  # under which the capture does not have them
            names = [*refnet.load(Path(place, "capture")).outputs.values()]
        outputs = [made.value(name) for name in names if name in made.names]
    opaque = [one for one in found.nodes if one.verdict == "unjudged"]
    shares = [one.share.largest for one in found.nodes if one.share is not None]
    return {
        **line,
        "nodes": len(found.nodes),
        "counts": dict(found.counts),
        "unjudged": dict(Counter(f"{one.kind}: {without_names(one.reason)}" for one in opaque)),
        "defects": [
            [one.name, one.kind, (one.reason or "")[:200]] for one in found.nodes if one.verdict == "defect"
        ],
        "unmatched": [one.name for one in found.unmatched][:20],
        "notes": [note[:200].replace(str(ROOT), "ROOT") for note in found.notes],
        "elements": sum(one.elements for one in found.nodes),
        "largest share": max(shares, default=0.0),
        "deviation": max((float(np.std(one)) for one in outputs), default=0.0),
        "seconds": [*line["seconds"], round(time.perf_counter() - begin - line["seconds"][0], 1)],
    }


def without_names(reason: str | None) -> str:
    """A reason without the names of values, so that equal ones can be counted."""
    return re.sub(r"'[^']*'", "VALUE", reason or "")[:160]


def summary(found: Sequence[dict[str, Any]]) -> str:
    """Each way's totals, a table with a line per network, and what stops how many."""
    ways = [way for way in WAYS if any(one["setting"]["route"] == way for one in found)]
    heads = [f"{way}: {head}" for way in ways for head in ("nodes", *COLUMNS)]
    text = [*(_total(way, [one for one in found if one["setting"]["route"] == way]) for way in ways), ""]
    text += [f"| network | side | {' | '.join(heads)} |", "|---|---:|" + "---:|" * len(heads)]
    rows: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    stops: dict[str, set[str]] = {}
    for one in found:
        s = one["setting"]
        rows.setdefault((s["network"], s["side"]), {})[s["route"]] = one
        for why in [one["failed"]] if one["failed"] else one["unjudged"]:
            stops.setdefault(f"{s['route']}: {why[:200]}", set()).add(s["network"])
    for (name, side), ran in sorted(rows.items()):
        cells = [cell for way in ways for cell in _cells(ran.get(way))]
        text.append(f"| {name} | {side} | {' | '.join(cells)} |")
    ordered = sorted(stops.items(), key=lambda item: -len(item[1]))
    return "\n".join([*text, "", *(f"{why} ({', '.join(sorted(names))})" for why, names in ordered)])


def _total(way: str, found: Sequence[dict[str, Any]]) -> str:
    """What all runs of a way add up to."""
    ran = [one for one in found if not one["failed"]]
    sums = {
        head: sum(one["counts"][kind] for one in ran for kind in kinds) for head, kinds in COLUMNS.items()
    }
    largest = max((one["largest share"] for one in ran), default=0.0)
    parts = ", ".join(f"{count:,} {head}" for head, count in sums.items())
    nodes = sum(one["nodes"] for one in ran)
    return f"{way}: {len(ran)} networks, {nodes:,} nodes: {parts}; at most {largest:.1%} of a bound"


def _cells(one: dict[str, Any] | None) -> list[str]:
    """A way's part of a network's line; "-" where it was not run, "refused" where something stopped it."""
    if one is None or one["failed"]:
        return ["-" if one is None else "refused", *[""] * len(COLUMNS)]
    figures = [one["nodes"], *(sum(one["counts"][kind] for kind in kinds) for kinds in COLUMNS.values())]
    return [f"{figure:,}" for figure in figures]


def wrong(one: dict[str, Any]) -> str | None:
    """What must not be in a run, whatever refnet lacks; None if all is right."""
    if one["failed"]:
        return None
    if one["defects"] or one["unmatched"]:
        return f"defects {one['defects'][:3]}, unmatched {one['unmatched'][:5]}"
    return None if one["deviation"] > 0 else "the output is constant"


def run(plan: list[Setting], done: set[str]) -> Iterator[dict[str, Any]]:
    """A line for each setting that is not done yet."""
    for setting in plan:
        if setting.key not in done:
            yield judged(setting)


def main(arguments: list[str]) -> int:
    """Run the settings; 1 if any value is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="foreign_networks"
    )
    parser.add_argument("results", type=Path, help="a file of JSON lines; it is added to")
    parser.add_argument(
        "--rows", nargs="+", choices=SOURCES, default=list(SOURCES), metavar="NAME", help="default: all"
    )
    ways = WAYS[:2]
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=ways, help=f"default: {' '.join(ways)}")
    parser.add_argument("--summary", action="store_true", help="run nothing, print what is there")
    a = parser.parse_args(arguments)
    if a.summary:
        found = lines(a.results)
    else:
        plan = settings(a.rows, a.ways)
        found = carried_on(a.results, [one.key for one in plan], lambda done: run(plan, done))
    print(summary(found))
    faults = [(one["key"], said) for one in found if (said := wrong(one))]
    for key, said in faults:
        print(f"{key}: {said}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
