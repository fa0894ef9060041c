"""A request's path through HTTP: connection, body, media, answer."""
