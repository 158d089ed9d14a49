"""The base of all of refnet: types, errors, the op, the graph, the interpreter, orders of summation."""
