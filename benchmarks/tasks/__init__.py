"""The gateway end to end, against other servers of the same tasks."""
