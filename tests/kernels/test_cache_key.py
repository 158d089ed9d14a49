"""The name of the kernel cache covers everything that machine code is made of."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numba

import refnet
from refnet.loops import jit
from refnet.loops.parts import Kernel
from tests.helpers.sources import walked

ROOT = Path(refnet.__file__).parent


def covered(path: Path) -> bool:
    name = path.relative_to(ROOT)
    return name.parts[0] in jit.COMPILED or name.as_posix() in jit.SHARED


def modules() -> Iterator[types.ModuleType]:
    """All of refnet that can be imported here: not the frameworks' workers."""
    for found in pkgutil.walk_packages(refnet.__path__, "refnet."):
        last = found.name.rpartition(".")[2]
        if "_weights" not in found.name and not last.endswith("_worker") and last != "__main__":
            yield importlib.import_module(found.name)


def compiled() -> dict[str, types.FunctionType]:
    """Every function that is compiled, by its full name."""
    found = {}
    for module in modules():
        for one in vars(module).values():
            function = one.py_func if isinstance(one, Kernel) else None
            if function is not None and function.__module__.startswith("refnet."):
                found[f"{function.__module__}.{function.__qualname__}"] = function
    return found


def names_used(code: types.CodeType) -> set[str]:
    """Names that a function, and those inside it, read from their module."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return set(code.co_names).union(*map(names_used, inner))


@cache
def origin(module: types.ModuleType) -> dict[str, str]:
    """Name -> module of refnet that it is imported from."""
    found = {}
    for node in walked(Path(str(module.__file__))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("refnet"):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def file_of(name: str) -> Path:
    """The file of a module, or of the module that a name stands in."""
    path = ROOT.parent.joinpath(*name.split("."))
    for place in (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py")):
        if place.is_file():
            return place
    return path.parent / "__init__.py"


def test_every_compiled_function_and_all_that_it_reads_is_covered():
    """A constant of another file is part of the machine code: an edit there must give another folder."""
    functions = compiled()
    assert len(functions) > 100
    for name, function in functions.items():
        assert covered(Path(inspect.getfile(function))), name
        module = inspect.getmodule(function)
        imported = origin(module)
        for used in names_used(function.__code__) & imported.keys():
            assert covered(file_of(imported[used])), f"{name} reads {used} of {imported[used]}"


def test_the_key_covers_the_versions(monkeypatch):
    before = {jit.cache_key()}
    for place, name in ((numba, "__version__"), (jit.llvmlite, "__version__"), (jit.np, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, "0.0")
            assert jit.cache_key() not in before
            before.add(jit.cache_key())


def test_the_key_changes_with_the_processor_that_vectors_are_chosen_for(monkeypatch):
    """Numba's own index has the same name for the host and for the host by name, whose vectors are short."""
    keys = {jit.cache_key()}
    monkeypatch.setattr(numba.config, "CPU_NAME", "znver4")
    keys.add(jit.cache_key())
    monkeypatch.setattr(numba.config, "CPU_FEATURES", "+sse2")
    keys.add(jit.cache_key())
    features = type("Features", (), {"flatten": lambda self: "-avx"})
    monkeypatch.setattr(jit.llvmlite.binding, "get_host_cpu_features", features)
    keys.add(jit.cache_key())
    assert len(keys) == 4
