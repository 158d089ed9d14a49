"""MXNet: symbol.json, .params, and archives of both."""
