"""Triton's model repository: `model.yaml`, the configurations that are made of it, and the folders on disk.

model.yaml --spec--> ModelSpec --configs--> protobuf messages --rendering--> files
"""
