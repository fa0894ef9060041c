"""The gateway end to end, against other ways to serve the same tasks."""
