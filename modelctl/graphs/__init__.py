"""ONNX files: read, run and changed."""
