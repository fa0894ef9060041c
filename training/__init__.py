"""How the bundled models were made: training, export to ONNX, and the surgery between export and serving."""
