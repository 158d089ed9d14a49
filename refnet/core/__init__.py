"""What all of refnet stands on: types, errors, the op, the graph, the interpreter, orders of summation."""
