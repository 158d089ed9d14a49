"""How a run rounds: the arithmetics plain, golden and replay."""
