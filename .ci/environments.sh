#!/usr/bin/env bash
# Makes the Python environments of the real frameworks for the crosschecks, one each, because MXNet needs
# an old NumPy. A complete one of the right versions is kept; anything else is made anew.
#   .venv-mxnet   mxnet 1.9.1, numpy 1.23.5
#   .venv-torch   torch 2.13.0, numpy, resnest 0.0.5 (without its requirements, which it does not need here),
#                 onnx 1.23.2 and onnxscript 0.7.2 for torch.onnx.export
#   .venv-zoo     torch 2.13.0, torchvision 0.28.0 (without its requirements; its compiled operators are for another build of torch), timm
#                 1.0.31, onnx 1.23.2, onnxscript 0.7.2: for tests/crosscheck/foreign_networks.py. Only made when it is named
#   .venv-extras  timm 1.0.31 (read, never imported), opencv-python-headless 5.0.0.93, numpy: other people's
#                 table of the ImageNet classes and their cubic resize
#   .venv-onnx    onnx 1.23.2, onnxruntime 1.31.1, numpy
#   .venv-openvino openvino 2026.4.1 (without its telemetry), numpy
#   .venv-oldest  the oldest versions of NumPy, Numba and the rest that pyproject.toml declares: refnet itself
#                 runs there, and must give the same bits
#   .venv-aarch64 refnet's own libraries in the versions of .venv, and Python 3.11, for aarch64: bin/python runs them in
#                 QEMU's emulation of one process. Debian 12's packages (qemu-user-static is installed with apt-get, as root,
#                 unless it is there; the others are unpacked into the folder) and the wheels for that processor
#   browser       no environment: Debian's chromium and chromium-driver (installed with apt-get, as root, unless they are
#                 there), and selenium 4.51.0 in .venv: the HTML report is tested in a real browser
#   dask          no environment: distributed 2026.8.0 in .venv, for `refnet evaluate --dask` and `refnet prove --dask`
#   jupyter       no environment: jupytext, nbclient and ipykernel in .venv: the notebooks in a real kernel
#   .venv-node    typescript 5.9.3 (with npm; nodejs and npm are installed with apt-get, as root, unless they are there): reads the
#                 types in the comments of the learners' page's modules
#   .venv-site    sphinx 9.0.4, myst-parser 5.2.0, furo 2025.12.19, and refnet with its libraries: the documentation's site
# Usage: bash .ci/environments.sh [mxnet] [torch] [extras] [onnx] [openvino] [oldest] [aarch64] [browser] [node] [dask] [jupyter] [site] [zoo]      (default: all but zoo)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
oldest="numpy==2.0.0 numba==0.61.0 pillow==10.3.0 rich==13.7.0 jinja2==3.1.2 platformdirs==2.6.0 safetensors==0.4.3"

say() { printf '%4d s  %s\n' $SECONDS "$*"; }

# versions PYTHON PACKAGE...: prints "package==version" of each, or fails
versions() {
    "$1" - "${@:2}" <<'END'
import sys
from importlib.metadata import version
print(*(f"{name}=={version(name).split('+')[0]}" for name in sys.argv[1:]))
END
}

# complete FOLDER PINS IMPORTS: whether the environment has these versions, and they can be imported
complete() {
    local folder=$1 pins=$2 imports=$3
    [[ -x $folder/bin/python ]] || return 1
    # shellcheck disable=SC2046,SC2086
    [[ $(versions "$folder/bin/python" $(printf '%s\n' $pins | sed 's/==.*//') 2>/dev/null) == "$pins" ]] || return 1
    "$folder/bin/python" -W ignore -c "import $imports" >/dev/null 2>&1
}

# make FOLDER PINS IMPORTS COMMANDS...: each command is the arguments of one `pip install`
make() {
    local folder=$1 pins=$2 imports=$3 begin=$SECONDS
    shift 3
    if complete "$folder" "$pins" "$imports"; then
        say "$folder is complete: $pins"
        return
    fi
    say "$folder: installing $pins"
    rm -rf "$folder"
    "$python" -m venv "$folder"
    for arguments in "$@"; do
        # shellcheck disable=SC2086
        "$folder/bin/python" -m pip install -q --disable-pip-version-check $arguments
        say "$folder: installed $arguments"
    done
    if ! complete "$folder" "$pins" "$imports"; then
        say "$folder does not have $pins, or they cannot be imported" >&2
        exit 1
    fi
    say "$folder is ready, after $((SECONDS - begin)) s"
}

# What Python 3.11 and the libraries need of Debian 12
debian="libc6 libpython3.11-minimal libpython3.11-stdlib python3.11-minimal zlib1g libexpat1 libssl3 libffi8 liblzma5 libbz2-1.0
    libsqlite3-0 libstdc++6 libgcc-s1 libcrypt1 libuuid1"
wheels="numpy numba llvmlite pillow safetensors rich jinja2 platformdirs markupsafe pygments markdown-it-py mdurl"

aarch64() {
    local folder=$PWD/.venv-aarch64 begin=$SECONDS pins lists packages
    if [[ ! -x .venv/bin/python ]]; then
        say "aarch64: there is no .venv, whose versions it takes; the README's first command makes it" >&2
        exit 1
    fi
    # shellcheck disable=SC2086
    pins=$(versions .venv/bin/python $wheels)
    if ! command -v qemu-aarch64-static >/dev/null; then
        say "aarch64: installing qemu-user-static"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user-static >/dev/null
    fi
    if complete "$folder" "$pins" "numpy"; then
        say "$folder is complete: $pins"
        return
    fi
    rm -rf "$folder"
    lists=$folder/apt
    mkdir -p "$folder"/{bin,system,site,wheels} "$lists"/{lists/partial,cache/archives/partial,packages}
    packages=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
        -o "Dir::State::Lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o Dir::State::status=/dev/null)
    say "aarch64: Debian's packages"
    apt-get "${packages[@]}" update
    # shellcheck disable=SC2086
    (cd "$lists/packages" && apt-get "${packages[@]}" download $debian)
    for package in "$lists"/packages/*.deb; do dpkg -x "$package" "$folder/system"; done
    say "aarch64: $pins"
    # shellcheck disable=SC2086
    .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --dest "$folder/wheels" \
        --python-version 3.11 --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 $pins
    for wheel in "$folder"/wheels/*.whl; do .venv/bin/python -m zipfile -e "$wheel" "$folder/site"; done
    rm -rf "$lists" "$folder/wheels"
    cat >"$folder/bin/python" <<END
#!/usr/bin/env bash
PYTHONPATH="$folder/site\${PYTHONPATH:+:\$PYTHONPATH}" exec qemu-aarch64-static -L "$folder/system" "$folder/system/usr/bin/python3.11" -s "\$@"
END
    chmod +x "$folder/bin/python"
    if ! complete "$folder" "$pins" "numpy"; then
        say "$folder does not have $pins, or they cannot be imported" >&2
        exit 1
    fi
    say "$folder is ready, after $((SECONDS - begin)) s"
}

browser() {
    local begin=$SECONDS selenium=selenium==4.51.0
    if [[ ! -x .venv/bin/python ]]; then
        say "browser: there is no .venv, which the crosschecks run in; the README's first command makes it" >&2
        exit 1
    fi
    if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
        say "browser: installing chromium and chromium-driver"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null
    fi
    if [[ $(versions .venv/bin/python selenium 2>/dev/null) != "$selenium" ]]; then
        .venv/bin/python -m pip install -q --disable-pip-version-check "$selenium"
    fi
    say "browser: $(chromium --version 2>/dev/null), $(versions .venv/bin/python selenium), after $((SECONDS - begin)) s"
}

dask() {
    local begin=$SECONDS distributed=distributed==2026.8.0
    if [[ ! -x .venv/bin/python ]]; then
        say "dask: there is no .venv, which the crosschecks run in; the README's first command makes it" >&2
        exit 1
    fi
    if [[ $(versions .venv/bin/python distributed 2>/dev/null) != "$distributed" ]]; then
        .venv/bin/python -m pip install -q --disable-pip-version-check "$distributed"
    fi
    say "dask: $(versions .venv/bin/python distributed), after $((SECONDS - begin)) s"
}

jupyter() {
    local begin=$SECONDS pins="jupytext==1.19.6 nbclient==0.11.0 ipykernel==7.4.0"
    if [[ ! -x .venv/bin/python ]]; then
        say "jupyter: there is no .venv, which the crosschecks run in; the README's first command makes it" >&2
        exit 1
    fi
    if ! complete .venv "$pins" "jupytext, nbclient, ipykernel"; then
        # shellcheck disable=SC2086
        .venv/bin/python -m pip install -q --disable-pip-version-check $pins
    fi
    say "jupyter: $pins, after $((SECONDS - begin)) s"
}

node() {
    local begin=$SECONDS typescript=5.9.3 tsc=.venv-node/node_modules/.bin/tsc
    if [[ $("$tsc" --version 2>/dev/null) != "Version $typescript" ]]; then
        if ! command -v npm >/dev/null; then
            say "node: installing nodejs and npm"
            apt-get update -qq
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
        fi
        rm -rf .venv-node
        mkdir .venv-node
        npm install --no-save --no-package-lock --silent --prefix .venv-node "typescript@$typescript"
    fi
    say "node: typescript $("$tsc" --version), after $((SECONDS - begin)) s"
}

for framework in "${@:-mxnet torch extras onnx openvino oldest aarch64 browser node dask jupyter site}"; do
    for name in $framework; do
        case $name in
        mxnet) make .venv-mxnet "numpy==1.23.5 mxnet==1.9.1" "mxnet" "numpy==1.23.5 mxnet==1.9.1" ;;
        torch) make .venv-torch "torch==2.13.0 resnest==0.0.5 onnx==1.23.2 onnxscript==0.7.2" "torch, numpy, resnest.torch, onnxscript" \
            "torch==2.13.0 numpy onnx==1.23.2 onnxscript==0.7.2" "--no-deps resnest==0.0.5" ;;
        zoo) make .venv-zoo "torch==2.13.0 torchvision==0.28.0 timm==1.0.31 onnx==1.23.2 onnxscript==0.7.2" "torch, numpy, onnxscript, safetensors" \
            "torch==2.13.0 numpy onnx==1.23.2 onnxscript==0.7.2 pillow pyyaml safetensors huggingface_hub" \
            "--no-deps torchvision==0.28.0 timm==1.0.31" ;;
        extras) make .venv-extras "timm==1.0.31 opencv-python-headless==5.0.0.93" "cv2" \
            "opencv-python-headless==5.0.0.93 numpy" "--no-deps timm==1.0.31" ;;
        onnx) make .venv-onnx "onnx==1.23.2 onnxruntime==1.31.1" "onnx.reference, onnxruntime" \
            "onnx==1.23.2 onnxruntime==1.31.1 numpy" ;;
        openvino) make .venv-openvino "openvino==2026.4.1" "numpy, openvino" "--no-deps openvino==2026.4.1" "numpy" ;;
        oldest) make .venv-oldest "$oldest" "numpy, numba, PIL, rich, jinja2, platformdirs, safetensors" "$oldest" ;;
        aarch64) aarch64 ;;
        browser) browser ;;
        dask) dask ;;
        node) node ;;
        jupyter) jupyter ;;
        site) make .venv-site "sphinx==9.0.4 myst-parser==5.2.0 furo==2025.12.19" "sphinx, myst_parser, furo, refnet.learn.page, numba" \
            "sphinx==9.0.4 myst-parser==5.2.0 furo==2025.12.19" "-e ." ;;
        *) echo "no environment $name; there are mxnet, torch, extras, onnx, openvino, oldest, aarch64, browser, node, dask, jupyter, site and zoo" >&2 && exit 2 ;;
        esac
    done
done
