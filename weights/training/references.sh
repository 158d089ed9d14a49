#!/usr/bin/env bash
# Makes what `refnet verify` shows without arguments: the captures and books in weights/captures and weights/books.
# PyTorch 2.13.0 and MXNet 1.9.1 compute the two digits networks with their trained weights, and, as hashes only,
# resnest-50-pytorch and octave-se-resnet-50-0.125 with weights and input of seed 0; batch 1, 1 thread. They are told
# to use AVX2 and no more, so that any processor of the last ten years computes the same bits.
# Usage: bash weights/training/references.sh     needs .venv, and .venv-torch and .venv-mxnet of .ci/environments.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
refnet=${REFNET:-.venv/bin/refnet}
torch="--python ${REFNET_PYTHON_TORCH:-.venv-torch/bin/python} --environment ATEN_CPU_CAPABILITY=avx2"
torch+=" --environment ONEDNN_MAX_CPU_ISA=AVX2 --environment MKL_ENABLE_INSTRUCTIONS=AVX2"
mxnet="--python ${REFNET_PYTHON_MXNET:-.venv-mxnet/bin/python} --environment OPENBLAS_CORETYPE=Haswell"
mxnet+=" --environment DNNL_MAX_CPU_ISA=AVX2"
digits="digits_torch:network --path weights/training --state weights/resnest-digits.pth --model resnest-digits"
sample=sample:1700-label-5.png

# make NAME FRAMEWORK OPTIONS_OF_BOTH OPTIONS_OF_THE_CAPTURE
make() {
    local name=$1 both=$2 capture=$3
    mkdir -p weights/books weights/captures
    rm -rf "weights/captures/$name"
    # shellcheck disable=SC2086
    [[ -e weights/books/$name.json ]] || $refnet reveal $both -o "weights/books/$name.json"
    # shellcheck disable=SC2086
    $refnet capture $both $capture -o "weights/captures/$name"
}

make resnest-digits "torch $digits $torch" "--input $sample"
make octave-se-resnet-digits "mxnet octave-se-resnet-digits $mxnet" "--input $sample"
make resnest-50-pytorch "torch resnest-50-pytorch --weights seed:0 $torch" "--input seed:0 --hash-only"
make octave-se-resnet-50-0.125 "mxnet octave-se-resnet-50-0.125 --weights seed:0 $mxnet" "--input seed:0 --hash-only"
$refnet verify --full
