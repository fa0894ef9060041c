"""The cost of the gateway, measured on a model that answers at once, against Triton called directly."""
