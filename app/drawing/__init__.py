"""Answers drawn as pictures, by processes of their own."""
