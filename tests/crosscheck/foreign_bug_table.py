"""The bugs of foreign_bugs.py: network, node, how they come about, and what plants them.

A bug's plant is a function of foreign_bug_edits.Edit, for ONNX Runtime on the network's .onnx file; or a
name in foreign_bug_modules.BUGS, for PyTorch on the module itself. The node is named as the right network
names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.crosscheck.foreign_bug_edits import (
    I64,
    Edit,
    activations_in_half,
    batch_statistics,
    brain,
    dropped,
    eight_bits,
    first_row,
    gelu_sigmoid,
    gelu_tanh,
    layer_norm,
    max_padded_with_zeros,
    residual_after_norm,
    rms_norm,
    shuffled,
    two_groups,
)

NETWORKS = {
    "unet": ("own", 64),
    "unet_bilinear": ("own", 64),
    "espcn": ("own", 64),
    "yolo_like": ("own", 64),
    "style_transfer": ("own", 64),
    "small_transformer": ("own", 64),
    "decoder": ("own", 61),
    "generator": ("own", 61),
    "deit_tiny_patch16_224": ("timm", 64),
    "poolformer_s12": ("timm", 64),
    "cspdarknet53": ("timm", 64),
    "convnext_tiny": ("torchvision", 64),
    "swin_t": ("torchvision", 224),
    "mobilenet_v2": ("torchvision", 64),
    "mobilenet_v3_small": ("torchvision", 64),
    "shufflenet_v2_x1_0": ("torchvision", 64),
    "densenet121": ("torchvision", 96),
    "resnext50_32x4d": ("torchvision", 64),
    "deeplabv3_mobilenet_v3_large": ("torchvision", 64),
}
"""Network -> where it comes from, the side of its input."""


@dataclass(frozen=True)
class Bug:
    """name: of the bug. practice: how it comes about. node: whose value it makes wrong, and no other's."""

    name: str
    practice: str
    network: str
    node: str
    plant: Callable[[Edit], object] | str

    @property
    def route(self) -> str:
        """Who runs the network with the bug."""
        return "torch" if isinstance(self.plant, str) else "onnxruntime"


BLOCK, ATTENTION = "/layers/layers.0", "/layers/layers.0/self_attn"
DEIT, SWIN = "/blocks/blocks.3", "/features/features.1/features.1.1/attn"
CONVNEXT, POOLFORMER = "/features/features.1/features.1.0", "/stages/stages.0/blocks/blocks.0"

NORMS = (
    Bug(
        "LayerNorm's eps 1e-3",
        "TensorFlow's default for PyTorch's 1e-5",
        "small_transformer",
        f"{BLOCK}/norm1/LayerNormalization_output_0",
        lambda e: e.set(epsilon=1e-3),
    ),
    Bug(
        "LayerNorm's variance unbiased",
        "torch.var's default in a hand-written norm",
        "small_transformer",
        f"{BLOCK}/norm2/LayerNormalization_output_0",
        lambda e: layer_norm(e, unbiased=True),
    ),
    Bug(
        "BatchNorm's eps outside the root",
        "1 / (sqrt(var) + eps)",
        "densenet121",
        "/features/denseblock1/denselayer4/norm1/BatchNormalization_output_0",
        lambda e: e.weight(4, lambda v: (np.sqrt(v.astype(np.float64)) + 1e-5) ** 2 - 1e-5),
    ),
    Bug(
        "RMSNorm for LayerNorm",
        "the mean is not subtracted",
        "deit_tiny_patch16_224",
        f"{DEIT}/norm1/LayerNormalization_output_0",
        rms_norm,
    ),
    Bug(
        "LayerNorm over all axes but the batch",
        "one group of channels and pixels",
        "convnext_tiny",
        f"{CONVNEXT}/block/block.2/LayerNormalization_output_0",
        lambda e: layer_norm(e, axes=(1, 2, 3)),
    ),
    Bug(
        "LayerNorm's shift missing",
        "bias=False",
        "swin_t",
        "/features/features.0/features.0.2/LayerNormalization_output_0",
        lambda e: e.weight(2, np.zeros_like),
    ),
    Bug(
        "InstanceNorm without its affine part",
        "affine=False, PyTorch's default",
        "style_transfer",
        "/block/block.0/block.0.1/InstanceNormalization_output_0",
        lambda e: e.weight(1, np.ones_like),
    ),
    Bug(
        "InstanceNorm's eps 1e-3",
        "Keras's default",
        "style_transfer",
        "/down/down.1/down.1.1/InstanceNormalization_output_0",
        lambda e: e.set(epsilon=1e-3),
    ),
    Bug(
        "GroupNorm in two groups for one",
        "the reshape before an instance norm",
        "poolformer_s12",
        f"{POOLFORMER}/norm1/Reshape_1_output_0",
        two_groups,
    ),
    Bug("GroupNorm's groups", "num_groups=4 for 1", "poolformer_s12", "group_norm_4", "groups"),
    Bug(
        "BatchNorm's batch statistics",
        "left in training mode",
        "densenet121",
        "/features/denseblock1/denselayer3/norm1/BatchNormalization_output_0",
        batch_statistics,
    ),
    Bug("BatchNorm's eps 1e-3", "Keras's default for PyTorch's 1e-5", "unet", "getitem_6", "batch norm eps"),
    Bug(
        "BatchNorm's variance corrected twice", "n / (n - 1) on what had it", "unet", "getitem_3", "unbiased"
    ),
    Bug(
        "BatchNorm's shift and mean exchanged",
        "arrays of one shape matched by position",
        "densenet121",
        "/features/denseblock1/denselayer1/norm1/BatchNormalization_output_0",
        lambda e: e.swap(2, 3),
    ),
    Bug(
        "BatchNorm's deviation for its variance",
        "a square root too many",
        "densenet121",
        "/features/denseblock1/denselayer2/norm1/BatchNormalization_output_0",
        lambda e: e.weight(4, np.sqrt),
    ),
    Bug(
        "LocalResponseNorm's alpha not divided by its size",
        "AlexNet's own definition",
        "decoder",
        "mul_21",
        "alpha",
    ),
)
FUNCTIONS = (
    Bug("gelu's tanh form for its own", "approximate='tanh'", "small_transformer", "gelu_1", "gelu tanh"),
    Bug(
        "gelu's tanh form for erf's",
        "BERT's and GPT-2's file",
        "deit_tiny_patch16_224",
        f"{DEIT}/mlp/act/Mul_1_output_0",
        gelu_tanh,
    ),
    Bug(
        "gelu as x sigmoid(1.702 x)",
        "CLIP's QuickGELU",
        "convnext_tiny",
        f"{CONVNEXT}/block/block.4/Mul_1_output_0",
        gelu_sigmoid,
    ),
    Bug(
        "silu for hard swish",
        "MobileNetV3's activation taken for its model",
        "mobilenet_v3_small",
        "/features/features.0/features.0.2/HardSwish_output_0",
        lambda e: e.become("Mul", e.inputs[0], e.before("Sigmoid", e.inputs[0])),
    ),
    Bug(
        "hard sigmoid's slope 0.2",
        "ONNX's and Keras's default for 1/6",
        "mobilenet_v3_small",
        "/features/features.1/block/block.1/scale_activation/HardSigmoid_output_0",
        lambda e: e.set(alpha=0.2),
    ),
    Bug(
        "relu for relu6",
        "the upper limit dropped",
        "mobilenet_v2",
        "/features/features.0/features.0.2/Clip_output_0",
        lambda e: e.become("Relu", e.inputs[0]),
    ),
    Bug(
        "leaky relu's slope 0.1",
        "Darknet's for timm's 0.01",
        "cspdarknet53",
        "/stem/conv1/bn/act/LeakyRelu_output_0",
        lambda e: e.set(alpha=0.1),
    ),
    Bug("leaky relu's slope 0.01", "the default for 0.2", "decoder", "leaky_relu", "leaky slope"),
    Bug("PReLU with one slope", "num_parameters=1, PyTorch's default", "decoder", "prelu", "one slope"),
    Bug(
        "hard tanh for tanh",
        "an accelerator's clamp",
        "espcn",
        "/1/Tanh_output_0",
        lambda e: e.become("Clip", e.inputs[0], e.constant(-1), e.constant(1)),
    ),
    Bug(
        "sigmoid by a table of 10 bits",
        "a lookup",
        "yolo_like",
        "/stem/stem.0/stem.0.2/Sigmoid_output_0",
        lambda e: e.become(
            "Sigmoid",
            e.before(
                "Div", e.before("Round", e.before("Mul", e.inputs[0], e.constant(1024))), e.constant(1024)
            ),
        ),
    ),
)
ATTENTION_BUGS = (
    Bug(
        "attention's scale 1/d",
        "1/sqrt(d) once more",
        "small_transformer",
        f"{ATTENTION}/Mul_output_0",
        lambda e: e.become("Mul", e.inputs[0], e.constant(1 / 8)),
    ),
    Bug(
        "attention's scale missing",
        "left to a fused kernel that has none",
        "small_transformer",
        "/layers/layers.1/self_attn/Mul_1_output_0",
        lambda e: e.become("Identity", e.inputs[0]),
    ),
    Bug(
        "softmax over the queries",
        "the axis before the last",
        "small_transformer",
        f"{ATTENTION}/Softmax_output_0",
        lambda e: e.set(axis=-2),
    ),
    Bug(
        "queries and keys exchanged",
        "packed as k, q, v",
        "deit_tiny_patch16_224",
        f"{DEIT}/attn/Mul_output_0",
        lambda e: e.read(0, f"{DEIT}/attn/Squeeze_1_output_0"),
    ),
    Bug(
        "values of another head",
        "heads reversed",
        "deit_tiny_patch16_224",
        f"{DEIT}/attn/MatMul_1_output_0",
        lambda e: e.read(1, e.before("Gather", e.inputs[1], e.constant([2, 1, 0], I64), axis=1)),
    ),
    Bug(
        "relative position bias transposed",
        "query and key exchanged",
        "swin_t",
        f"{SWIN}/Add_1_output_0",
        lambda e: e.weight(1, lambda b: b.swapaxes(-1, -2)),
    ),
    Bug("window shift forgotten", "roll by 0", "swin_t", f"{SWIN}/Concat_3_output_0", lambda e: e.swap(0, 1)),
    Bug(
        "window mask of the other windows",
        "windows in column order",
        "swin_t",
        f"{SWIN}/Add_11_output_0",
        lambda e: e.read(1, e.before("Gather", e.inputs[1], e.constant(range(63, -1, -1), I64), axis=1)),
    ),
    Bug(
        "position embedding moved by one",
        "a class token counted twice",
        "deit_tiny_patch16_224",
        "/Add_output_0",
        lambda e: e.weight(1, lambda p: np.roll(p, 1, 1)),
    ),
    Bug(
        "class token behind the patches",
        "concatenated in the other order",
        "deit_tiny_patch16_224",
        "/Concat_output_0",
        lambda e: e.swap(0, 1),
    ),
    Bug(
        "first patch for the class token",
        "index 1 for 0",
        "deit_tiny_patch16_224",
        "/Gather_output_0",
        lambda e: e.weight(1, lambda index: index + 1),
    ),
    Bug(
        "residual added after the norm",
        "x = norm(x); x + f(x)",
        "deit_tiny_patch16_224",
        f"{DEIT}/Add_output_0",
        residual_after_norm,
    ),
    Bug(
        "layer scale missing",
        "a parameter that no file names",
        "convnext_tiny",
        f"{CONVNEXT}/Mul_output_0",
        lambda e: e.become("Identity", e.inputs[0]),
    ),
)
MAPS = (
    Bug(
        "align_corners for half_pixel",
        "another resize",
        "unet_bilinear",
        "/ups.0/ups.0.0/Resize_output_0",
        lambda e: e.set(coordinate_transformation_mode="half_pixel"),
    ),
    Bug("align_corners forgotten", "PyTorch's default", "unet_bilinear", "upsample_bilinear2d_1", "corners"),
    Bug(
        "nearest upsampling rounded up",
        "nearest_mode ceil for floor",
        "yolo_like",
        "/up/Resize_output_0",
        lambda e: e.set(nearest_mode="ceil"),
    ),
    Bug(
        "output padding on the other side",
        "the pads of a transposed convolution exchanged",
        "generator",
        "/rise/ConvTranspose_output_0",
        lambda e: e.set(pads=[0, 0, 1, 1], output_padding=[0, 0]),
    ),
    Bug(
        "transposed convolution's kernel flipped",
        "computed as a convolution of a stretched map",
        "unet",
        "/ups.0/ConvTranspose_output_0",
        lambda e: e.weight(1, lambda w: w[..., ::-1, ::-1]),
    ),
    Bug("dilation forgotten", "an attribute dropped", "decoder", "conv2d_2", "dilation"),
    Bug(
        "dilation 6 for 12",
        "another output stride",
        "deeplabv3_mobilenet_v3_large",
        "/model/classifier/classifier.0/convs.1/convs.1.0/Conv_output_0",
        lambda e: e.set(dilations=[1, 1], pads=[1, 1, 1, 1]),
    ),
    Bug(
        "groups in another order",
        "the last group first",
        "resnext50_32x4d",
        "/layer1/layer1.0/conv2/Conv_output_0",
        lambda e: e.weight(1, lambda w: np.roll(w, 4, 0)),
    ),
    Bug(
        "padding behind only",
        "TensorFlow's SAME with stride 2",
        "mobilenet_v3_small",
        "/features/features.0/features.0.0/Conv_output_0",
        lambda e: e.set(pads=[0, 0, 2, 2]),
    ),
    Bug(
        "edge for reflect",
        "another padding mode",
        "style_transfer",
        "/block/block.0/block.0.0/Pad_output_0",
        lambda e: e.set(mode="edge"),
    ),
    Bug(
        "max pool sees zeros",
        "zeros where -inf belongs, after silu",
        "yolo_like",
        "/pool/MaxPool_output_0",
        max_padded_with_zeros,
    ),
    Bug(
        "padding counted",
        "count_include_pad, PyTorch's default",
        "decoder",
        "avg_pool2d_1",
        "padding counted",
    ),
    Bug(
        "ceil_mode's ragged windows divided by all",
        "divisor of the whole window",
        "decoder",
        "avg_pool2d",
        "divisor",
    ),
    Bug(
        "pixel shuffle DCR for CRD",
        "TensorFlow's depth_to_space",
        "espcn",
        "OUTPUT",
        lambda e: e.set(mode="DCR"),
    ),
    Bug(
        "channel shuffle in the other order",
        "groups and channels exchanged",
        "shufflenet_v2_x1_0",
        "/stage2/stage2.0/Reshape_1_output_0",
        lambda e: shuffled(e, 58),
    ),
    Bug("concatenation swapped", "upsampled map first", "unet", "/Concat_output_0", lambda e: e.swap(0, 1)),
    Bug(
        "grid of columns and rows exchanged",
        "meshgrid's indexing",
        "yolo_like",
        "/Add_2_output_0",
        lambda e: e.read(1, e.before("Gather", e.inputs[1], e.constant([1, 0], I64), axis=2)),
    ),
    Bug(
        "mean over the columns only",
        "one axis for two",
        "mobilenet_v3_small",
        "/features/features.1/block/block.1/avgpool/GlobalAveragePool_output_0",
        first_row,
    ),
    Bug(
        "pool not subtracted from",
        "PoolFormer's token mixer without - x",
        "poolformer_s12",
        f"{POOLFORMER}/token_mixer/Sub_output_0",
        lambda e: e.become("Identity", e.inputs[0]),
    ),
)
WEIGHTS = (
    Bug("square weight transposed", "(in, out) for (out, in)", "decoder", "linear", "square"),
    Bug(
        "attention's output weight transposed",
        "a square matrix",
        "small_transformer",
        f"{ATTENTION}/Gemm_output_0",
        lambda e: e.set(transB=0),
    ),
    Bug(
        "bias missing",
        "bias=False",
        "deit_tiny_patch16_224",
        f"{DEIT}/attn/qkv/Add_output_0",
        lambda e: e.become("Identity", e.inputs[1]),
    ),
    Bug(
        "kernel's rows and columns swapped",
        "HW read as WH",
        "unet",
        "/first/first.0/Conv_output_0",
        lambda e: e.weight(1, lambda w: w.swapaxes(-1, -2)),
    ),
    Bug("weights through float16", "a file in half", "unet", "conv2d_4", "half weights"),
    Bug(
        "weights through bfloat16",
        "a file in bfloat16",
        "resnext50_32x4d",
        "/layer1/layer1.0/conv1/Conv_output_0",
        lambda e: e.weight(1, brain),
    ),
    Bug(
        "weights in int8",
        "one scale for the whole array",
        "cspdarknet53",
        "/stem/conv1/conv/Conv_output_0",
        lambda e: e.weight(1, eight_bits),
    ),
    Bug(
        "activations through float16",
        "a map stored in half",
        "espcn",
        "/3/Tanh_output_0",
        activations_in_half,
    ),
    Bug(
        "dropout active",
        "left in training mode",
        "small_transformer",
        f"{BLOCK}/linear2/Add_output_0",
        dropped,
    ),
    Bug(
        "RGB read as BGR in the weights",
        "the first convolution's channels reversed",
        "swin_t",
        "/features/features.0/features.0.0/Conv_output_0",
        lambda e: e.weight(1, lambda w: w[:, ::-1]),
    ),
)
BUGS = (*NORMS, *FUNCTIONS, *ATTENTION_BUGS, *MAPS, *WEIGHTS)
