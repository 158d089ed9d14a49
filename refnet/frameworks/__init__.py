"""One process per framework, spoken to through one small protocol (process.py)."""
