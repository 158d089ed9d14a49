"""MXNet's files -> Graph and arrays, and back: the public names of the mxnet_*.py files."""

from refnet.formats.mxnet.export import graph_to_symbol, write_symbol
from refnet.formats.mxnet.names import is_structural, rename_structural, structural_names
from refnet.formats.mxnet.params import read_params, write_params
from refnet.formats.mxnet.symbol import distinct_symbol, read_symbol
from refnet.formats.mxnet.tar import read_tar

__all__ = [
    "distinct_symbol",
    "graph_to_symbol",
    "is_structural",
    "read_params",
    "read_symbol",
    "read_tar",
    "rename_structural",
    "structural_names",
    "write_params",
    "write_symbol",
]
