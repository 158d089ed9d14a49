"""Where in a checkpoint the weights are: state dicts, nested ones, EMA beside them, whole modules.

    unpickled object ── states ── {path: names and tensors} ── chosen ── one of them, and what was left

Nothing here walks a shared part of the file twice, but for a module's (bounded by MOST_NAMES).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.bounded import check_name
from refnet.formats.torch.stand_ins import Global, Opaque, Ordered, Tensor

WEIGHTS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "model_ema_state_dict", "params_ema",
)  # fmt: skip
"""Keys of weights in published checkpoints. Of several that a file has, the first counts: EMA comes last."""
DEEPEST = 4
"""Dicts within one another that are looked into."""
MOST_NAMES = 200_000
"""Names and modules of a module that was pickled whole."""
MOST_LEVELS = 100


@dataclass(frozen=True)
class Chosen:
    """The weights of a checkpoint. path: its keys, joined by points; "" if the file is the state dict.

    whole: the class of a module that was pickled whole. others: the paths of the other weights in it.
    """

    tensors: Mapping[str, Tensor]
    path: str = ""
    whole: str = ""
    others: tuple[str, ...] = ()


def chosen(saved: Any, key: str | None, file: str) -> Chosen:
    """The weights under `key` (keys joined by points), or those that the file's own keys tell.

    Raises UnsupportedError where there are none, where no rule tells which of several, and for entries that
    are no tensors; FormatError for names that are no text.

    >>> chosen({}, None, "a.pth").tensors
    {}
    >>> chosen({"state_dict": {}}, "ema", "a.pth")
    Traceback (most recent call last):
    refnet.core.errors.UnsupportedError: a.pth: holds no weights under the key 'ema': it has no others
    """
    found = dict(_states(saved))
    if key is not None:
        if key not in found:
            listed = f"under {_listed(found)}" if found else "no others"
            raise UnsupportedError(f"{file}: holds no weights under the key {key[:100]!r}: it has {listed}")
        path = key
    elif not found:
        return Chosen(_checked(_nearest(_items(saved, file)), file))
    else:
        ranks = {path: _rank(path) for path in found}
        path = min(found, key=lambda one: ranks[one])
        if equal := [one for one in found if ranks[one] == ranks[path] and one != path]:
            raise UnsupportedError(
                f"{file}: holds several weights, under {_listed([path, *equal])}: key (--key) names one"
            )
    value = found[path]
    whole = str(value) if type(value) is Opaque else ""
    tensors = _checked(_module(value, file) if whole else _items(value, file), file)
    return Chosen(tensors, path, whole, tuple(one for one in found if one != path))


def _states(saved: Any) -> Iterator[tuple[str, Any]]:
    """(path, state dict or module) of all that are in it, each once, from the outside in."""
    level, seen = [("", saved)], set()
    for _ in range(DEEPEST):
        inner = []
        for path, value in level:
            if id(value) in seen:
                continue
            seen.add(id(value))
            items = _dict(value)
            if _is_module(value) or (items and _is_state(items)):
                yield path, value
            elif items is not None:
                inner += [(f"{path}.{n}" if path else n, x) for n, x in items.items() if type(n) is str]
        level = [(path, value) for path, value in inner if _dict(value) is not None or _is_module(value)]


def _is_state(items: Mapping[Any, Any]) -> bool:
    """Names and tensors; among them may be some that cannot be read, so that the message names them."""
    some = any(type(value) is Tensor for value in items.values())
    return some and all(
        type(name) is str and (type(value) is Tensor or (type(value) is Opaque and not _is_module(value)))
        for name, value in items.items()
    )


def _nearest(items: dict[Any, Any]) -> dict[Any, Any]:
    """What is nearest to a state dict, where there is none: for the message, or it is empty."""
    inner = (_dict(items.get(key)) for key in WEIGHTS)
    return next((one for one in inner if one is not None), items)


def _dict(value: Any) -> dict[Any, Any] | None:
    if type(value) is Ordered:
        return value.items
    return value if type(value) is dict else None


def _is_module(value: Any) -> bool:
    """What a torch.nn.Module that was pickled whole looks like, whatever its class."""
    state = _dict(value.state) if type(value) is Opaque else None
    return state is not None and {"_parameters", "_buffers", "_modules"} <= state.keys()


def _rank(path: str) -> tuple[int, ...]:
    """Smaller for what is rather meant: by the place of each key in WEIGHTS."""
    keys = path.split(".") if path else []
    return tuple(WEIGHTS.index(key) if key in WEIGHTS else len(WEIGHTS) for key in keys)


def _listed(paths: Any) -> str:
    shown = [repr(path[:60]) for path in list(paths)[:8]]
    return ", ".join(shown) + (" and more" if len(paths) > 8 else "")


def _items(saved: Any, file: str) -> dict[Any, Any]:
    items = _dict(saved)
    if items is None:
        what = f"the global {saved}"[:200] if type(saved) is Global else type(saved).__name__
        if type(saved) is Opaque:
            what = f"an object of {saved} (at byte {saved.at}), which is neither made nor called"
        raise UnsupportedError(f"{file}: holds {what}, refnet reads state dicts")
    return items


def _module(root: Opaque, file: str) -> dict[str, Any]:
    """Names and tensors of a module, as its state_dict() would give them."""
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    steps = 0
    while waiting:
        prefix, module, depth = waiting.pop()
        steps += 1
        if not _is_module(module) or depth > MOST_LEVELS:
            what = f"module {prefix[:100]!r}"
            raise UnsupportedError(f"{file}: {what} is no module with parameters, buffers and modules")
        state = _dict(module.state) or {}
        parts = [_dict(state[part]) or {} for part in ("_parameters", "_buffers", "_modules")]
        hidden = state.get("_non_persistent_buffers_set")
        skipped = {n for n in hidden if type(n) is str} if type(hidden) is list else set()
        own = {**parts[0], **{n: x for n, x in parts[1].items() if n not in skipped}}
        steps += sum(map(len, parts)) + len(skipped)
        if steps > MOST_NAMES:
            raise FormatError(file, root.at, "a module of too many parts", f"at most {MOST_NAMES}")
        found.update({f"{prefix}{name}": value for name, value in own.items() if value is not None})
        inner = [(f"{prefix}{name}.", x, depth + 1) for name, x in parts[2].items() if x is not None]
        waiting += reversed(inner)
    return found


def _checked(items: Mapping[Any, Any], file: str) -> dict[str, Tensor]:
    """The entries, all of them tensors with names that are text."""
    for name, value in items.items():
        if type(value) is Opaque:
            shown = f"entry {str(name)[:100]!r} at byte {value.at} is of {value}"
            raise UnsupportedError(f"{file}: {shown}, which refnet does not read as a tensor")
        if type(name) is not str or type(value) is not Tensor:
            shown = f"entry {str(name)[:100]!r} is {type(value).__name__}"
            raise UnsupportedError(f"{file}: {shown}; a state dict holds names and tensors only")
        check_name(name, file, value.at, "a tensor's name")
    return dict(items)
