"""The way of a request through HTTP: connection, body, media, answer."""
