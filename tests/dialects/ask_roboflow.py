"""Runs in inference-sdk's environment: calls as JSON on stdin -> the client's results as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from typing import Any

import supervision
from inference_sdk import InferenceConfiguration, InferenceHTTPClient

warnings.simplefilter("ignore")


def answer(url: str, call: dict[str, Any]) -> dict[str, Any]:
    """Make one call: `api` v0 or v1, `image` a path or several, `model`, `configuration`, `asynchronous`."""
    client = InferenceHTTPClient(api_url=url, api_key="any")
    client.select_api_v0() if call.get("api") == "v0" else client.select_api_v1()
    client.configure(InferenceConfiguration(**call.get("configuration", {})))
    try:
        if call.get("asynchronous"):
            given = asyncio.run(client.infer_async(call["image"], model_id=call["model"]))
        else:
            given = client.infer(call["image"], model_id=call["model"])
    except Exception as error:  # noqa: BLE001 - what the client raises is what is tested
        return {"raised": type(error).__name__, "text": str(error), "status": getattr(error, "status_code", None)}
    return {"given": given, "boxes": boxes(given)}


def boxes(given: Any) -> list[dict[str, Any]]:
    """Read an answer as Roboflow's own supervision does; classifications have no boxes."""
    if isinstance(given, list) or "top" in given:
        return []
    found = supervision.Detections.from_inference(given)
    return [
        {
            "corners": found.xyxy[index].tolist(),
            "score": float(found.confidence[index]),
            "class_id": int(found.class_id[index]),
            "label": str(found.data["class_name"][index]),
        }
        for index in range(len(found))
    ]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    json.dump([answer(asked["url"], call) for call in asked["calls"]], sys.stdout)
