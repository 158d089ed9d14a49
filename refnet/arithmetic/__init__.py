"""How a run rounds: plain now; golden and replay are arithmetics of the same kind."""
