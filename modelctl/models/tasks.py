"""The tasks that a `model.yaml` can have, and the gateway's routes for them."""

from __future__ import annotations

ROUTES = {"image-classification": "classify", "object-detection": "detect", "text-classification": "sentiment"}
"""Task -> what follows `/v1/` in the gateway's URL."""
