"""How the bundled models were made: training, export to ONNX, and the surgery between export and serving."""

import os

# ONNX Runtime reports to its maker unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
