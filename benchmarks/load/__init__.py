"""Load generators for HTTP and gRPC."""
