"""The gateway: HTTP in, one gRPC call to Triton, typed JSON out. It knows tasks, never models."""
