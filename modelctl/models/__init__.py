"""Triton's model repository: `model.yaml`, the configurations generated from it, and the folders on disk.

model.yaml --spec--> ModelSpec --configs--> protobuf messages --rendering--> files
"""
