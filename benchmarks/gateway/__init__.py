"""What the gateway costs before a model that answers at once, against Triton asked directly."""
