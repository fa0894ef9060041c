"""The gateway's logs and metrics."""
