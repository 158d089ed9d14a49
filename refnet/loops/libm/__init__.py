"""The exp and sigmoid of named libraries, operation by operation."""
