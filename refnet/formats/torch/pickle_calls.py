"""The globals that a pickle of torch's may call, and the inert stand-ins that are called instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from refnet.formats.torch.stand_ins import STORAGES, Global, Opaque, Ordered, Storage, Tensor

if TYPE_CHECKING:
    from refnet.formats.torch.pickle_file import Machine

MOST_PAIRS = 1_000_000
"""Pairs that all `OrderedDict([[key, value], ...])` of a file copy together."""
MOST_DIMENSIONS = 32


def _ordered(machine: Machine, arguments: tuple[Any, ...]) -> Ordered:
    """OrderedDict() or, from Python 2, OrderedDict([[key, value], ...])"""
    made = Ordered()
    pairs = arguments[0] if arguments else []
    if len(arguments) > 1 or type(pairs) is not list:
        raise machine.wrong("other arguments of OrderedDict", "none or a list of pairs")
    machine.pairs += len(pairs)
    if machine.pairs > MOST_PAIRS:
        raise machine.wrong(f"more than {MOST_PAIRS} pairs of OrderedDict", "a state dict")
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise machine.wrong("other arguments of OrderedDict", "a list of pairs")
        machine.set_item(made.items, pair[0], pair[1])
    return made


def _tensor(machine: Machine, arguments: tuple[Any, ...]) -> Tensor | Opaque:
    """_rebuild_tensor(storage, offset, size, stride), _v2(..., requires_grad, hooks, metadata)"""
    match arguments:
        case (Opaque() as storage, *_):
            return machine.opaque(storage.what)
        case (Storage() as storage, int(offset), tuple() as size, tuple() as stride, *rest) if len(rest) <= 3:
            numbers = (offset, *size, *stride)
            if len(size) == len(stride) <= MOST_DIMENSIONS and all(
                type(n) is int and n >= 0 for n in numbers
            ):
                return Tensor(storage, offset, size, stride, machine.start + machine.at)
    raise machine.wrong("other arguments of _rebuild_tensor", "storage, offset, size, stride (all >= 0)")


def _tensor_of_dtype(machine: Machine, arguments: tuple[Any, ...]) -> Opaque:
    """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype): float8, uint16, ..."""
    named = next((x for x in arguments if type(x) is Global), None)
    return machine.opaque(named or "a tensor of another kind")


def _parameter(machine: Machine, arguments: tuple[Any, ...]) -> Tensor | Opaque:
    """_rebuild_parameter(tensor, requires_grad, hooks), and the same with Python attributes of the tensor"""
    if len(arguments) not in (3, 4) or type(arguments[0]) not in (Tensor, Opaque):
        raise machine.wrong("other arguments of _rebuild_parameter", "tensor, requires_grad, hooks")
    found: Tensor | Opaque = arguments[0]
    return found


def _set(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    """set([...]): the list itself"""
    if len(arguments) == 1 and type(arguments[0]) is list:
        return arguments[0]
    return machine.opaque("set")


def _size(machine: Machine, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """torch.Size((...)): the tuple itself"""
    if len(arguments) != 1 or type(arguments[0]) is not tuple:
        raise machine.wrong("other arguments of torch.Size", "a tuple")
    return arguments[0]


def _device(machine: Machine, arguments: tuple[Any, ...]) -> str:
    """torch.device("cpu"): the string itself"""
    if not arguments or type(arguments[0]) is not str:
        raise machine.wrong("other arguments of torch.device", "a string")
    return arguments[0]


CALLS: Mapping[Global, Callable[[Machine, tuple[Any, ...]], Any]] = {
    Global("collections", "OrderedDict"): _ordered,
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _tensor_of_dtype,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    Global("__builtin__", "set"): _set,
    Global("builtins", "set"): _set,
    Global("torch", "Size"): _size,
    Global("torch", "device"): _device,
}

ALLOWED: tuple[str, ...] = (*map(str, CALLS), *(f"torch.{name}" for name in STORAGES))
"""The globals whose results are known. What any other names or would make is an Opaque."""
