"""How the bundled models were made: training, export to ONNX, and the surgery between export and serving."""

import os

# ONNX Runtime sends usage data to Microsoft unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
