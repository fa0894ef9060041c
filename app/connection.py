"""One connection: read by httptools, which costs a fifth of h11; by h11 where httptools would be wrong or unbounded.

httptools loses the body of a request that offers to upgrade to HTTP/2, as some clients do by default, and takes heads
and trailers of any length.
"""

from __future__ import annotations

import re

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
END = re.compile(rb"\r?\n\r?\n")
UNUSUAL = re.compile(rb"\n(?:upgrade|transfer-encoding)[ \t]*:", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """Holds a request's head back until it is whole, and then lets httptools or h11 read it."""

    _head = b""

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self.cycle is not None and not self.cycle.response_complete:
            super().data_received(data)  # more of a body, or the next request before the answer to this one
            return
        head = self._head + data
        end = END.search(head)
        if end is None and len(head) <= HEAD_BYTES:
            self._head = head
            return
        self._head = b""
        if end is None or end.start() > HEAD_BYTES or UNUSUAL.search(head):
            self._hand_over(head)
        else:
            super().data_received(head)

    def _hand_over(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        other = H11Protocol(self.config, self.server_state, self.app_state, self.loop)
        other.connection_made(self.transport)
        self.transport.set_protocol(other)
        other.data_received(data)
