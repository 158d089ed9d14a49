"""The project's own promises: packaging is complete, imports run one way, the import is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import yaml
from trove_classifiers import classifiers

import refnet
from refnet.ops import ALL
from tests.helpers.sources import walked

PACKAGE = Path(refnet.__file__).parent
ROOT = PACKAGE.parent


@cache
def for_types(path: Path) -> frozenset[int]:
    """The ids of the nodes that only type checkers see: all of `if TYPE_CHECKING:`, its `else` included."""
    branches = [one for one in walked(path) if isinstance(one, ast.If)]
    blocks = [one for one in branches if "TYPE_CHECKING" in ast.dump(one.test)]
    return frozenset(id(node) for block in blocks for node in ast.walk(block))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_installed():
    listed = set(project()["tool"]["setuptools"]["packages"]) - {"refnet._weights"}
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in PACKAGE.rglob("*.py")
        if "_weights" not in path.parts
    }
    assert listed == found


def test_every_file_beside_the_code_is_installed():
    """Styles, templates, tables: each is named by its package's entry in package-data."""
    patterns = project()["tool"]["setuptools"]["package-data"]
    known = {
        path
        for package, globs in patterns.items()
        if package != "refnet._weights"
        for pattern in globs
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    found = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert {path.name for path in found} >= {"py.typed", "html.css", "page.html"}
    assert found - known == set()


def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_all_say_the_same_version():
    assert project()["project"]["version"] == refnet.__version__ == citation()["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == refnet.__version__


def test_the_citation_is_what_its_format_asks_for():
    """Citation File Format 1.2.0: four required keys; texts are texts; no key that it does not know."""
    said = citation()
    assert said["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(said)
    texts = {"cff-version", "message", "title", "version", "abstract", "license", "type"}
    assert set(said) - texts <= {"authors", "keywords"}
    assert all(isinstance(said[key], str) and said[key].strip() for key in texts & set(said))
    assert said["type"] in {"software", "dataset"}
    assert all(isinstance(word, str) and word for word in said["keywords"])
    assert len(set(said["keywords"])) == len(said["keywords"])


def test_citation_and_package_agree():
    package, said = project()["project"], citation()
    assert [one["name"] for one in package["authors"]] == [one["name"] for one in said["authors"]]
    assert said["license"] == package["license"] == "MIT"
    assert package["description"].split()[1:] == said["abstract"].split(".")[0].split()[5:]
    assert set(package["classifiers"]) <= classifiers
    assert package["classifiers"] == sorted(package["classifiers"])


def test_public_names_exist():
    for name in refnet.__all__:
        assert getattr(refnet, name) is not None


def test_importing_refnet_and_its_command_line_imports_no_compiler():
    heavy = ("numba", "numpy", "PIL", "rich", "jinja2", "platformdirs")
    script = f"import sys, refnet, refnet.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LAYERS = [
    {"core"},
    {"loops"},
    {"kernels"},
    {"exact"},
    {"ops"},
    {"formats"},
    {"workers"},
    {"arithmetic", "prove"},
    {"models"},
    {"verification"},
    {"evaluation"},
    {"frameworks"},
    {"bench"},
    {"report", "learn"},
    {"cli"},
    {"__main__", "pytest_plugin"},
]
"""The packages, each importing only from those before it (docs/architecture.md)."""


def imports(path: Path) -> set[str]:
    """Rooms of refnet that a file imports, inside functions too."""
    rooms = set()
    for node in walked(path):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "refnet" else [f"refnet.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("refnet.")}
    return rooms


def test_imports_run_one_way():
    height = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        room = parts[0]
        if room in {"__init__", "_weights"}:
            continue
        assert room in height, f"{path}: put {room} into LAYERS"
        checked = {
            node.module.split(".")[1]
            for node in walked(path)
            if id(node) in for_types(path)
            and isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("refnet.")
        }
        for other in imports(path) - checked - {room}:
            if other in height:
                assert height[other] < height[room], f"{path} imports refnet.{other}"


def test_public_functions_are_called_from_above_only():
    """`import refnet` and then refnet.load would run upward, too."""
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in {"cli", "pytest_plugin.py", "_weights"}:
            continue
        for node in walked(path):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "refnet":
                assert node.attr in {"__version__", "__file__"}, f"{path}:{node.lineno}"


def test_ops_know_no_engine_and_core_nothing_else():
    """What a learner reads stands alone: an op is handed what computes, and core is handed its arithmetic."""
    for path in (PACKAGE / "core").rglob("*.py"):
        assert imports(path) <= {"core", "__version__"}, path
    for path in (PACKAGE / "ops").rglob("*.py"):
        assert imports(path) <= {"core", "ops"}, path


def test_readers_know_no_kernels_and_kernels_no_graphs():
    for path in (PACKAGE / "formats").rglob("*.py"):
        assert not imports(path) & {"kernels", "exact", "arithmetic", "models"}, path
    for path in (PACKAGE / "kernels").rglob("*.py"):
        assert imports(path) <= {"kernels", "loops", "core"}, path


def modules() -> dict[str, Path]:
    """Module name -> file, of all of refnet."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "_weights" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of refnet that a file imports when it runs, inside functions too; not for type checks."""
    found = set()
    for node in walked(path):
        if id(node) in for_types(path):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in members if name in known} or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known) - {"refnet"}


def test_no_circular_import():
    """Inside a package neither: a file can be read after those that it imports."""
    known = modules()
    waiting = {name: imported(path, known) - {name} for name, path in known.items() if name != "refnet"}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert waiting == {}, "these import one another, or something that does"


OCTAVES = ("octave", "octdensenet", "octgluon", "octmobilenet", "octresnet", "octresnet_gluon")
BUILDERS = (*OCTAVES, "resnest")
NAMES_OPS = {
    "arithmetic/golden_fused.py": "exactly these classes: what is derived from one may round in its own way",
    "frameworks/torch_ops.py": "PyTorch's table: one row per op",
    "frameworks/reveal/products.py": "who asks for a sum: by kinds of sums",
    "frameworks/live.py": "its table of functions of one number, which are swept by formula",
    **{f"models/{name}.py": "networks are built of ops" for name in BUILDERS},
    "models/cost.py": "the model cards' rule for operations: one row per op",
    "models/loading.py": "a symbol file's input channels, read off its first convolution",
    "bench/scaling.py": "the layer that is timed",
    "verification/folded.py": "what can be folded into what, and how it is computed",
    "prove/prove.py": "its table of functions with their default parameters",
}
"""Files beyond ops and formats that name a class of op, and why; what an op means is asked of the op."""


def named_ops(path: Path, classes: set[str]) -> set[str]:
    """Classes of ops that a file imports from refnet.ops, or reads from it as a module."""
    found = set()
    for node in walked(path):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("refnet.ops."):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "ops":
            found.add(node.attr)
    return found & classes


def test_what_an_op_means_is_asked_of_the_op():
    """No table of isinstance, no dictionary by class: they would have to be found when an op is added."""
    home = "refnet.ops"
    classes = {c.__name__ for kind in ALL for c in kind.__mro__ if c.__module__.startswith(home)}
    assert classes > {"Conv", "Move", "ConvAdd", "WindowedPool"}
    found = {
        name
        for path in PACKAGE.rglob("*.py")
        if (name := path.relative_to(PACKAGE).as_posix()).split("/")[0] not in {"ops", "formats", "_weights"}
        if named_ops(path, classes)
    }
    assert found == set(NAMES_OPS)


OPERATORS_BEYOND = {
    "core/of_integers.py",
    "loops/elementary.py",
    "loops/error_function.py",
    "loops/libm/eigen.py",
    "loops/libm/fdlibm.py",
    "loops/libm/glibc_log.py",
    "loops/libm/onednn_gelu.py",
    "loops/libm/sleef_pairs.py",
    "loops/real.py",
    "loops/trigonometry.py",
    "ops/__init__.py",
    "ops/activation_formulas.py",
    "ops/activations.py",
    "ops/bilinear.py",
    "ops/clip.py",
    "ops/conv_nd.py",
    "ops/conv_transpose.py",
    "ops/cumulative.py",
    "ops/extremes.py",
    "ops/function.py",
    "ops/functions.py",
    "ops/integers.py",
    "ops/interpolate.py",
    "ops/inverse.py",
    "ops/leaky.py",
    "ops/libraries.py",
    "ops/log_softmax.py",
    "ops/logarithms.py",
    "ops/lrn.py",
    "ops/matmul.py",
    "ops/merged_moments.py",
    "ops/normalised.py",
    "ops/normalised_bound.py",
    "ops/normalised_formulas.py",
    "ops/opaque.py",
    "ops/pad.py",
    "ops/pieces.py",
    "ops/places.py",
    "ops/pool_nd.py",
    "ops/pool_power.py",
    "ops/powers.py",
    "ops/reduce.py",
    "ops/reduce_powers.py",
    "ops/row_sums.py",
    "ops/scalar.py",
    "ops/select.py",
    "ops/steps.py",
    "ops/take.py",
    "ops/taps.py",
    "ops/trigonometry.py",
    "ops/whole_numbers.py",
}
"""What neither architecture uses, and the list of all ops: it does not count to the readable part."""
INFRASTRUCTURE = {
    "core/by_recipe.py",
    "core/caches.py",
    "core/interrupt.py",
    "core/limits.py",
    "core/notebook.py",
    "core/words.py",
    "loops/claims.py",
    "loops/garbage.py",
    "loops/jit.py",
    "loops/kernel_files.py",
    "loops/numba_cache.py",
    "loops/parts.py",
    "ops/__init__.py",
}
"""How loops are compiled, plans kept, nodes joined, runs interrupted, messages worded and ops listed: no part
of what is computed."""
READABLE = {"core": 2100, "ops": 3000, "loops": 1500}
"""Lines at most, of all files in a package that count. A file that is to grow beyond replaces something."""


def test_the_readable_part_can_be_read_in_one_sitting():
    for package, limit in READABLE.items():
        counted = {
            name: len(path.read_text().splitlines())
            for path in (PACKAGE / package).rglob("*.py")
            if (name := path.relative_to(PACKAGE).as_posix()) not in OPERATORS_BEYOND | INFRASTRUCTURE
        }
        assert sum(counted.values()) <= limit, package
        assert max(counted.values()) <= 450, max(counted, key=lambda name: counted[name])


NO_LOOP = {
    "accumulator": "exact sums, which tests/exact compares with rational arithmetic",
    "chunks": "computes nothing: as thread_pool",
    "decisions": "float64 estimates with a proven error, and what they decide: as accumulator",
    "exact_conv": "float64 sums with a proven error, in any order: tests/exact compares what they decide",
    "exact_steps": "one right result: tests/exact compares it with the nodes' own golden",
    "geometry": "computes nothing: where terms lie, and zeros around planes",
    "memory": "computes nothing: where results lie",
    "peak": "measures the processor",
    "stream": "measures the memory",
    "thread_pool": "computes nothing: who does which part of the work",
    "timed_launch": "computes nothing: as thread_pool",
    "winograd": "as exact_conv",
}
"""Files with compiled code in kernels/ that have no reference loop, and why."""


def test_every_fast_kernel_names_its_reference_loop():
    """In the first lines of its file; tests/kernels/test_pairs.py compares the two."""
    found = set()
    for path in (PACKAGE / "kernels").glob("*.py"):
        text = path.read_text()
        if "@njit" in text or "@intrinsic" in text:
            named = re.findall(r"\bloops/\w+\.py", ast.get_docstring(ast.parse(text)) or "")
            assert all((PACKAGE / name).is_file() for name in named), path
            found |= set() if named else {path.stem}
    assert found == set(NO_LOOP)


def test_no_private_name_crosses_a_package():
    for name, path in modules().items():
        for node in walked(path):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("refnet."):
                home = (node.module or "").split(".")[1]
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private or home == name.split(".")[1], f"{path} imports {private} of {node.module}"


def test_no_process_that_refnet_starts_imports_what_lies_in_the_current_folder():
    """python -c and -m look there first, unless -P is given or they run in another folder."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if '"-c"' in text or '"-m"' in text:
            assert '"-P"' in text or "cwd=" in text, path


def test_onnxs_node_tests_are_read_in_one_place():
    """Its list of them is shared: who changes a model there changes what other tests of the process read."""
    shared = ("collect_testcases", "load_model_tests", "_NodeTestCases")
    allowed = {"tests/helpers/onnx_cases.py", "tests/test_project.py"}
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*.py")
        if any(name in path.read_text() for name in shared)
    }
    assert found == allowed


def test_frameworks_are_never_imported():
    for path in PACKAGE.rglob("*.py"):
        if path.name.endswith("_worker.py") or path.parent.name == "_weights":
            continue
        for node in walked(path):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"torch", "mxnet", "onnxruntime"}, path


WRITES = {
    "formats/onnx/evaluator.py": {"np.save"},
    "formats/onnx/fold_worker.py": {"np.save"},
    "formats/write.py": {"os.open", "os.fdopen", "os.replace", "os.unlink"},
    "cli/__init__.py": {"os.open"},
    "loops/claims.py": {"os.open"},
    "loops/kernel_files.py": {"os.open", "os.fdopen", "os.replace", "os.unlink"},
    "frameworks/channel.py": {"open", "np.save", "os.fdopen", "os.open"},
    "frameworks/process.py": {"np.save"},
    "frameworks/torch_worker.py": {"torch.save"},
    "frameworks/torch_export_worker.py": {"exported.onnx.save"},
    "frameworks/mxnet_worker.py": {"mx.nd.save"},
    "frameworks/onnx_worker.py": {"onnx.save"},
    "models/fetch.py": {"os.replace"},
    "models/unpack.py": {"os.replace"},
    "report/terminal.py": {"os.open"},
    "report/html_pictures.py": {"image.save"},
}
"""Who writes files, or moves what `formats/write.py` has opened, and with what. claims, kernel_files: below
formats, with the same flags. channel, process, the workers: in a folder that only this user can open, or
where refnet said. fetch, unpack: move what is finished. cli, terminal: the null device. html_pictures,
evaluator, fold_worker: into memory."""


OF_OS = ("open", "fdopen", "replace", "rename", "link", "symlink", "truncate")
OF_ANYTHING = {
    "write_text",
    "write_bytes",
    "tofile",
    "save",
    "savez",
    "savetxt",
    "memmap",
    "mkstemp",
    "touch",
}
OF_ANYTHING |= {"NamedTemporaryFile", "copyfileobj", "copyfile", "copy2", "symlink_to", "hardlink_to"}


def writing_calls(path: Path) -> set[str]:
    """The calls in a file that could create, change or move a file."""
    found = set()
    for node in walked(path):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        values = (*node.args, *(keyword.value for keyword in node.keywords))
        modes = [str(one.value) for one in values if isinstance(one, ast.Constant)]
        opens = last == "open" and any(set(one) <= set("rwxabt+") and set(one) & set("wxa+") for one in modes)
        if opens or last in OF_ANYTHING or name in {"shutil.move", *(f"os.{one}" for one in OF_OS)}:
            found.add(name)
    return found


def test_files_are_written_in_one_way():
    """Random name, exclusively, following no link (formats/write.py); no other writer may come in."""
    found = {path.relative_to(PACKAGE).as_posix(): writing_calls(path) for path in PACKAGE.rglob("*.py")}
    own = {"kept.save", "shutil.copyfileobj", "kernel_files.save"}  # which use those
    wrong = {name: more for name, calls in found.items() if (more := calls - own - WRITES.get(name, set()))}
    assert wrong == {}


def test_no_file_is_named_after_the_process():
    """Two containers have processes of the same number, and may share a folder."""
    for path in PACKAGE.rglob("*.py"):
        for node in walked(path):
            if isinstance(node, ast.JoinedStr):
                inside = {getattr(one, "attr", getattr(one, "id", "")) for one in ast.walk(node)}
                assert "getpid" not in inside, path
