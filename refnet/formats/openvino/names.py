"""What the values of an IR are called."""

from __future__ import annotations

from collections.abc import Mapping

from refnet.core.errors import FormatError
from refnet.formats.openvino.file import Model, Place


def value_names(model: Model) -> Mapping[Place, str]:
    """(layer id, place of its output port) -> the name of the value.

    A port's first name, in the file's order; a converter sorts them. A port without one has its layer's name,
    behind a colon its place where the layer has several outputs; where that is taken already, a layer before
    it or a port has it, the layer's id follows in parentheses. Raises FormatError for a name of two ports.
    """
    found: dict[Place, str] = {}
    owners: dict[str, Place] = {}
    for layer in model.layers:
        for k, port in enumerate(layer.outputs):
            for name in port.names:
                if owners.setdefault(name, (layer.id, k)) != (layer.id, k):
                    other = model.by_id[owners[name][0]]
                    raise layer.wrong(f"the value's name {name[:100]!r}, which layer {other.id} has", "one")
            if port.names:
                found[layer.id, k] = port.names[0]
    taken = set(owners)
    for layer in model.by_id.values():
        for k, port in enumerate(layer.outputs):
            if not port.names:
                name = layer.name if len(layer.outputs) == 1 else f"{layer.name}:{k}"
                if name in taken:
                    name = f"{name} ({layer.id})"
                if name in taken:
                    raise FormatError(model.file, layer.offset, f"two values {name[:100]!r}", "one of a name")
                taken.add(name)
                found[layer.id, k] = name
    return found
