"""The HTTP routes: each reads, calls and returns."""
