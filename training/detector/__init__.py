"""The object detector: how it was distilled, and how it is exported."""
