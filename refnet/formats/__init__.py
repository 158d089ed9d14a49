"""Files of others -> Graph, or names and arrays, and back. Nothing in a file is ever executed."""
