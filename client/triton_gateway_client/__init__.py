"""A client of the Triton Gateway.

    with Gateway("http://127.0.0.1:8080") as gateway:
        gateway.classify("coffee.jpg").best.label

`AsyncGateway` is the same client for asyncio. The package knows the gateway's HTTP contract only.
"""

from triton_gateway_client.async_gateway import AsyncGateway
from triton_gateway_client.batches import Batches
from triton_gateway_client.errors import (
    AccessDeniedError,
    ConnectionFailedError,
    DeadlineExceededError,
    GatewayError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from triton_gateway_client.gateway import Gateway
from triton_gateway_client.images import ImageInput
from triton_gateway_client.results import (
    Box,
    Classification,
    Detection,
    Detections,
    Health,
    ImageSize,
    LabelScore,
    Model,
    ModelHealth,
    Prediction,
    Sentiment,
    Usage,
)

__all__ = [
    "AccessDeniedError",
    "AsyncGateway",
    "Batches",
    "Box",
    "Classification",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "Detection",
    "Detections",
    "Gateway",
    "GatewayError",
    "Health",
    "ImageInput",
    "ImageSize",
    "InvalidInputError",
    "LabelScore",
    "Model",
    "ModelHealth",
    "NotFoundError",
    "OverloadedError",
    "Prediction",
    "Sentiment",
    "UnavailableError",
    "Usage",
]
