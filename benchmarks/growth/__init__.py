"""What a request costs the gateway as connections, models, batches and pictures grow."""
