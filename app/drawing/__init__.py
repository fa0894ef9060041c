"""Answers drawn as pictures, by separate processes."""
