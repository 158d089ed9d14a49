"""ONNX files: read, folded, exported."""
