"""The porting bugs; `python -m tests.helpers.porting_catalogue` prints the table of docs/porting-bugs.md."""

from __future__ import annotations

import numpy as np

from tests.helpers import porting_changes as c
from tests.helpers.engines import FAST
from tests.helpers.porting_bugs import (
    HARMLESS,
    HIDDEN,
    PROVED,
    Bug,
    growing,
    no_variance,
    one_hot,
    order_free,
)
from tests.helpers.porting_changes import BETA, BIAS, GAMMA, VAR, WEIGHT
from tests.helpers.porting_inputs import INPUT_BUGS

O, R, P = "octave digits", "resnest digits", "pieces"  # noqa: E741
O26, R50 = "octave-resnet-26-0.5", "resnest-50-pytorch"
NORM = "L2_B01_conv2_bn-h"
TAPS = "L2_B01_conv2_conv-h2h"  # 12 to 12 channels, 3 x 3: 108 terms
DEEP = "layer4.1.conv2.conv"  # 256 channels per group, 3 x 3: 2304 terms
SPLIT = "layer1.0.conv2."

WIDE_WEIGHTS, WIDE_DATA = order_free("weight"), order_free("data")
PROBES = {
    WIDE_WEIGHTS: "order-free, the bits in the weights",
    WIDE_DATA: "order-free, the bits in the data",
    one_hot: "order-free, one product per output",
    growing: "terms that rounding keeps and cutting loses",
    no_variance: "variance 0",
}
"""What a hidden bug's probe is called."""

# fmt: off
CATALOGUE: tuple[Bug, ...] = (
    # Batch norm
    Bug("eps 1e-5 for 1e-4, small variance", "the framework's default was kept", P,
        {"narrow": c.attributes(eps=1e-5)}),
    Bug("eps 1e-5 for 1e-4, usual variance", "the framework's default was kept", O,
        {NORM: c.attributes(eps=1e-5)}),
    Bug("eps 1e-5 for 1e-4, variance 10000", "the framework's default was kept", P,
        {"wide": c.attributes(eps=1e-5)}, HIDDEN, no_variance),
    Bug("eps missing", "folded into weights without it", O, {NORM: c.attributes(eps=0.0)}),
    Bug("eps added to the deviation", "1 / (sqrt(var) + eps)", O,
        {NORM: c.formula(lambda x, g, b, m, v, eps: (x - m) * (g / (np.sqrt(v) + eps)) + b)}),
    Bug("gamma taken for 1", "fix_gamma, MXNet's default, where the network says False", O,
        {NORM: c.attributes(fix_gamma=True)}),
    Bug("gamma used although fixed", "fix_gamma=True read as the usual batch norm", P,
        {"fixed": c.attributes(fix_gamma=False)}),
    Bug("gamma and beta swapped", "arrays of one shape matched by position", R,
        {"bn1": c.exchanged(GAMMA, BETA)}),
    Bug("variance taken for the deviation", "(x - mean) / (var + eps)", O,
        {NORM: c.formula(lambda x, g, b, m, v, eps: (x - m) * (g / (v + eps)) + b)}),
    Bug("beta dropped", "affine=False", R, {"bn1": c.given(BETA, np.zeros_like)}),
    Bug("statistics of another layer", "names matched by order", R,
        {"conv1.4": c.statistics_of("conv1.1")}),
    Bug("batch statistics", "left in training mode", R, {"conv1.1": c.batch_statistics(1.0)}),
    Bug("statistics averaged once more", "one pass in training mode before the export", R,
        {"conv1.1": c.batch_statistics(0.1)}),
    Bug("variance unbiased", "n / (n - 1) applied to what had it already", R,
        {"conv1.1": c.given(VAR, lambda v: v * np.float32(1024 / 1023))}),
    # Convolution and dense
    Bug("padding behind only", "TensorFlow's SAME with stride 2", R, {"conv1.0": c.padded_behind}),
    Bug("stride in the 1 x 1 convolution", "ResNet v1's bottleneck for that of v1b", "resnet-26-baseline",
        {"L3_B01_conv1_conv": c.attributes(stride=(2, 2)), "L3_B01_conv2_conv": c.attributes(stride=(1, 1))},
        found=("L3_B01_conv1_conv",)),
    Bug("dilation forgotten", "an exporter that drops the attribute", P,
        {"left": c.attributes(dilation=(1, 1), pad=(1, 1))}),
    Bug("groups ignored", "every group reads the first one's channels", R,
        {f"{SPLIT}conv": c.first_group_only}),
    Bug("channels shuffled across groups", "groups innermost instead of outermost", R,
        {f"{SPLIT}conv": c.result(c.shuffled(2))}),
    Bug("true convolution", "the kernel flipped, as in textbooks and SciPy", O,
        {TAPS: c.given(WEIGHT, lambda w: w[:, :, ::-1, ::-1])}),
    Bug("kernel's rows and columns swapped", "HW read as WH", O,
        {TAPS: c.given(WEIGHT, lambda w: w.swapaxes(2, 3))}),
    Bug("weights in the order OHWI read as OIHW", "an NHWC framework's file", O,
        {TAPS: c.given(WEIGHT, lambda w: w.transpose(0, 2, 3, 1).reshape(w.shape))}),
    Bug("dense weights transposed", "(in, out) for (out, in) of a square layer", P,
        {"square": c.given(WEIGHT, lambda w: w.T)}),
    Bug("bias dropped", "a default of no bias", R, {f"{SPLIT}fc1": c.given(BIAS, np.zeros_like)}),
    Bug("bias added twice", "folded and kept", R, {f"{SPLIT}fc1": c.given(BIAS, lambda b: 2 * b)}),
    Bug("two channels swapped", "a permutation applied to one side only", O,
        {"conv1_conv": c.result(lambda y: y[:, [1, 0, *range(2, y.shape[1])]])}),
    Bug("last channel stale", "off by one in a vector's tail: 12 channels are 8 and 4", O,
        {"L2_B01_conv1_conv-h2h": c.last_channel_stale}),
    # Pooling
    Bug("padding counted although it must not be", "count_include_pad=True kept for ragged windows", P,
        {"mean": c.result(lambda y: y * c.ragged_divisors())}),
    Bug("padding not counted", "count_include_pad=False; Caffe, TensorFlow", R,
        {"layer2.0.avd_layer": c.attributes(count_include_pad=False)}),
    Bug("floor for ceil", "ceil_mode dropped", P, {"ragged": c.attributes(convention="valid")}),
    Bug("divisor off by one", "9 elements, divided by 8", R,
        {"layer2.0.avd_layer": c.result(lambda y: y * np.float32(9 / 8))}),
    Bug("maximum for average", "pool_type dropped: MXNet's default is max", O,
        {"pooling0": lambda s: c.ops.MaxPool((2, 2), (2, 2)).run(s.x, engine=FAST)}),
    Bug("max pool padded with zeros", "zeros where -inf belongs, on negative values", P,
        {"pool": c.padded_with_zeros}),
    Bug("max pool padded with zeros after a ReLU", "zeros where -inf belongs; nothing is below them", O,
        {"pool1": c.padded_with_zeros}, HARMLESS),
    Bug("max pool padded behind only", "TensorFlow's SAME with stride 2", O, {"pool1": c.padded_behind}),
    Bug("last row and column dropped", "a global average over (h - 1) x (w - 1)", R,
        {f"{SPLIT}adaptive_avg_pool2d":
            lambda s: s.op.run(np.ascontiguousarray(s.x[:, :, :-1, :-1]), engine=FAST)}),
    # Octave
    Bug("octave paths swapped", "weights of high to low and low to low, of one shape at alpha 0.5", O26,
        {"L2_B01_conv2_conv-h2l": c.weight("L2_B01_conv2_conv-l2l_weight"),
         "L2_B01_conv2_conv-l2l": c.weight("L2_B01_conv2_conv-h2l_weight")}),
    Bug("low added where high belongs", "the sum of a path takes the other frequency's identity", O26,
        {"L2_B01_conv2_conv-h": lambda s: s.op.run(s.inputs[1], s.inputs[1], engine=FAST)}),
    Bug("upsampling shifted by one", "floor((i + 1) / 2) for floor(i / 2)", O,
        {"upsampling0": lambda s: c.shifted(s.x)}),
    Bug("upsampling bilinear", "the resize's default kept", O, {"upsampling0": lambda s: c.bilinear(s.x)}),
    # Split attention
    Bug("radix and cardinality transposed", "the view without its transpose", "resnest-50-fast-2s2x40d",
        {f"{SPLIT}rsoftmax": c.radix_view}),
    Bug("softmax over the channels", "the wrong axis of the radix softmax", R,
        {f"{SPLIT}rsoftmax": c.radix_over_channels}),
    Bug("sigmoid for softmax", "the code of radix 1 taken at radix 2", R,
        {f"{SPLIT}rsoftmax": c.radix_sigmoid}),
    Bug("radix parts interleaved", "channels split as c % radix", R, {f"{SPLIT}add_1": c.parts_interleaved}),
    Bug("radix mean for sum", "an average over the parts", R, {f"{SPLIT}add_1": c.result(lambda y: y / 2)}),
    Bug("attention of the other part", "parts in reverse order", R, {f"{SPLIT}add_3": c.attention_swapped}),
    # Activations, sums, layout
    Bug("relu missing", "fused away, but not done", O, {"conv1_relu": lambda s: s.x}),
    Bug("relu6", "a mobile network's activation", R,
        {"layer2.1.relu_1": c.result(lambda y: np.minimum(y, 6))}),
    Bug("leaky relu", "a slope of 0.01 left in", O,
        {"conv1_relu": lambda s: np.where(s.x < 0, np.float32(0.01) * s.x, s.x)}),
    Bug("relu before the addition", "relu(x) + shortcut", R,
        {"layer1.0.iadd": lambda s: s.op.run(np.maximum(s.x, 0), s.inputs[1], engine=FAST)}),
    Bug("residual before its activation", "the shortcut taken one node too early", R,
        {"layer2.1.iadd": c.value("layer2.0.iadd", 1)}),
    Bug("residual missing", "the shortcut dropped by a graph rewrite", R, {"layer2.1.iadd": lambda s: s.x}),
    Bug("hard sigmoid", "MobileNetV3's gate", O, {"L2_B01_se_sigmoid-h": c.hard_sigmoid}),
    Bug("fast exp", "a cubic polynomial, right to 1e-4", O, {"softmax": c.softmax_with(c.cubic_exp, 1)}),
    Bug("softmax over the batch", "axis 0", R, {"prob": c.softmax_with(np.exp, 0)}, batch=4),
    Bug("concatenation swapped", "inputs in the other order", P,
        {"joined": lambda s: s.op.run(s.inputs[1], s.inputs[0], engine=FAST)}),
    Bug("flattened as NHWC", "the channel fastest", P,
        {"flat": lambda s: s.x.transpose(0, 2, 3, 1).reshape(len(s.x), -1)}),
    Bug("flattened as NHWC after a global pool", "one pixel: the order is the same", R,
        {"avgpool": lambda s: s.x.transpose(0, 2, 3, 1).reshape(len(s.x), -1)}, HARMLESS),
    # Numbers
    Bug("weights through float16, 108 terms", "stored in half", O, {TAPS: c.given(WEIGHT, c.float16)}),
    Bug("weights through float16, 2304 terms", "stored in half", R50, {DEEP: c.given(WEIGHT, c.float16)},
        HIDDEN, WIDE_WEIGHTS),
    Bug("weights through bfloat16, 108 terms", "stored in bfloat16", O, {TAPS: c.given(WEIGHT, c.bfloat16)}),
    Bug("weights through bfloat16, 2304 terms", "stored in bfloat16", R50,
        {DEEP: c.given(WEIGHT, c.bfloat16)}),
    Bug("weights in int8", "one scale for the whole array", R50, {DEEP: c.given(WEIGHT, c.int8)}),
    Bug("TF32, 108 terms", "10-bit factors, as tensor cores take them by default", O,
        {TAPS: c.tf32_operands}),
    Bug("TF32, 2304 terms", "10-bit factors, as tensor cores take them by default", R50,
        {DEEP: c.tf32_operands},
        HIDDEN, WIDE_DATA),
    Bug("float16 accumulation", "partial sums in half", O, {TAPS: c.accumulated(c.to_float16)}),
    Bug("bfloat16 accumulation", "partial sums in bfloat16", O, {TAPS: c.accumulated(c.to_bfloat16)}),
    Bug("accumulation cut, not rounded", "rounding towards zero, as some accelerators do", O,
        {TAPS: c.accumulated(c.truncated)}, HIDDEN, growing),
    Bug("activations through float16", "values stored in half", R, {"layer1.0.relu_1": c.result(c.float16)}),
    Bug("Winograd F(4, 3), 9 terms", "no bug: other products than the formula's, with their own error", O,
        {"conv1_conv": c.winograd}, HIDDEN, WIDE_DATA),
    Bug("Winograd F(4, 3), 108 terms", "no bug: other products than the formula's, with their own error", O,
        {TAPS: c.winograd}, HIDDEN, WIDE_DATA),
    Bug("subnormal results flushed", "flush-to-zero left on", O,
        {"conv1_conv": c.result(c.flushed)}, scale=2.0**-125),
    Bug("subnormal inputs flushed", "denormals-are-zero left on", O, {"conv1_conv": c.given(0, c.flushed)},
        scale=2.0**-125),
    Bug("subnormal weights flushed", "a dead channel's weights", P, {"deep": c.given(WEIGHT, c.flushed)}),
    # Memory
    Bug("a mantissa's lowest bit flipped, of a sum", "a bad transfer", O, {TAPS: c.result(c.flipped(0))},
        HIDDEN, WIDE_WEIGHTS),
    Bug("a mantissa's lowest bit flipped, of a maximum", "a bad transfer", O,
        {"pool1": c.result(c.flipped(0))}),
    Bug("a mantissa's middle bit flipped", "a bad transfer", O, {TAPS: c.result(c.flipped(12))}),
    Bug("a weight's lowest bit flipped", "a damaged file", O, {TAPS: c.given(WEIGHT, c.flipped(0))},
        HIDDEN, one_hot),
    Bug("a weight's middle bit flipped", "a damaged file", O, {TAPS: c.given(WEIGHT, c.flipped(12))}),
    Bug("a sign flipped", "a bad transfer", O, {TAPS: c.result(c.flipped(31))}),
    Bug("an exponent's bit flipped", "a bad transfer", O, {TAPS: c.result(c.flipped(25))}),
    Bug("a constant added to one tile", "memory that was not cleared", O, {TAPS: c.result(c.tile)}),
)
# fmt: on


def table() -> str:
    """The catalogue in Markdown."""
    said = {
        PROVED: "defect",
        HIDDEN: "rounding; a defect on inputs made for it",
        HARMLESS: "nothing: no bit differs",
    }
    lines = ["| bug | in practice | seeded at | verdict |", "|---|---|---|---|"]
    for bug in CATALOGUE:
        nodes = ", ".join(f"`{name}`" for name in bug.changes)
        kind = said[bug.kind] if bug.probe is None else f"{said[bug.kind]} ({PROBES[bug.probe]})"
        lines.append(f"| {bug.name} | {bug.practice} | {nodes} of {bug.network} | {kind} |")
    return "\n".join(lines) + "\n"


def input_table() -> str:
    """The bugs of the input in Markdown."""
    lines = ["| bug | in practice | verdict |", "|---|---|---|"]
    lines += [f"| {bug.name} | {bug.practice} | defect at `data` |" for bug in INPUT_BUGS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), input_table(), sep="\n", end="")
