"""Files of others -> Graph, or names and arrays. Nothing in a file is ever executed."""
