"""The image classifier: published weights, exported and measured here."""
