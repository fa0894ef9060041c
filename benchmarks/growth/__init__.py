"""The CPU time of a request in the gateway as connections, models, batches and pictures grow."""
