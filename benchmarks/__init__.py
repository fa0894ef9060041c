"""Measurements whose figures the documents quote, each with its command."""
