"""Measurements whose figures the documents quote, each with its command."""

import os

# ONNX Runtime reports to its maker unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
