"""One connection: parsed by httptools, which costs less than h11; by h11 where httptools would be wrong or unbounded.

    bytes --whole head--> plain: head and body to httptools, one request at a time
                      --> anything else: h11 parses this connection from now on

httptools loses the body of a request that offers to upgrade to HTTP/2, as some clients do by default. It accepts heads
and trailers of any length, and a missing Host. So it only gets requests without an upgrade, with one Host, with a head
of limited length and without trailers.

A client may end its side of the connection and go on reading. It gets the answers to all requests that it has sent
whole, unless one waits for a slot: see `Context.half_close`. The next request begins when the client has read the
previous answer, and a client that does not read is cut off (`app.http.outgoing`).
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.outgoing import OUTGOING, UNSENT_BYTES, Backlog, Outgoing

MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_S = 10.0
"""A head must be complete this many seconds after its first bytes."""
SLICE = 8 * 1024
TINY_CHUNK = re.compile(rb"\r\n0*[0-9a-fA-F](?=\r\n)")
MAX_TINY_CHUNKS = 2000
"""Chunks of less than 16 bytes in one body. Each costs h11 as much as a long chunk."""
END = re.compile(rb"\r?\n\r?\n")
# A target may name a host, which then counts instead of `Host` (RFC 9112, 3.2.2); httptools would drop it.
ORIGIN_FORM = re.compile(rb"[A-Z]+ [/*]")
UNUSUAL = re.compile(rb"\n(?:upgrade|transfer-encoding)[ \t]*:", re.IGNORECASE)
HOST = re.compile(rb"\nhost:", re.IGNORECASE)
LENGTH = re.compile(rb"\ncontent-length", re.IGNORECASE)
PLAIN_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)


class _Base(asyncio.Protocol):
    """The behaviour of both protocols when a client does not read, or has ended its side of the connection."""

    app_state: Any
    cycle: Any
    flow: Any
    on_response_complete: Any
    scope: Any
    transport: Any
    _backlog: Backlog
    _ended = False
    """Whether the client has ended its side."""
    _postponed = False
    """Whether the next request waits until the client has read a complete answer."""

    @property
    def _outgoing(self) -> Outgoing:
        return self.app_state[OUTGOING]  # type: ignore[no-any-return]

    def _has_more(self) -> bool:
        """Return whether bytes have come that belong to a later request."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        super().pause_writing()
        self._outgoing.look(self._backlog)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._outgoing.look(self._backlog)
        if self._postponed:
            self._postponed = False
            self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request in progress."""
        self._outgoing.remove(self._backlog)
        super().connection_lost(exc)
        if self.cycle is not None and not self.cycle.response_complete:
            context = self.scope["state"].get("context")
            if context is not None and context.leave is not None:
                context.leave()

    def eof_received(self) -> bool:
        """Return whether the connection stays open although the client sends nothing more."""
        self._ended = True
        if self.cycle is None or self.cycle.response_complete:
            return self._postponed and self._has_more()
        if self.cycle.more_body:
            return False
        state = self.scope["state"]
        if "context" in state:
            return bool(state["context"].half_close(self.transport.close))
        state["hang_up"] = self.transport.close  # its task has not begun yet
        return True

    def _may_begin_next(self) -> bool:
        """Return whether the next request may begin; if not, postpone it until the client has read the answer."""
        self._postponed = self.flow.write_paused and not self.transport.is_closing()
        return not self._postponed

    def _close_if_ended(self) -> None:
        if self._ended and not self.eof_received():
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: a client may offer HTTP/2, and gets an answer by HTTP/1.1."""


class _H11(_Base, H11Protocol):
    """Parses SLICE bytes per turn of the event loop: h11 is slow on a body in chunks of one byte."""

    _waiting = b""
    _tiny_chunks = 0
    """In the current request's body."""
    _head_due: float | None = None
    """When the head that has begun must be complete."""

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        begun = bool(self._waiting)
        self._waiting += data
        if begun or len(data) > SLICE:
            self.transport.pause_reading()
        if not begun:
            self._take_slice()

    def _take_slice(self) -> None:
        data, self._waiting = self._waiting[:SLICE], self._waiting[SLICE:]
        if self.transport.is_closing():
            return
        self._tiny_chunks += len(TINY_CHUNK.findall(data))
        if self._tiny_chunks > MAX_TINY_CHUNKS:
            self.send_400_response("The body has too many chunks of a few bytes.")
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._waiting:
            self.loop.call_soon(self._take_slice)
            return
        self._limit_head()
        if not self.flow.read_paused:
            self.transport.resume_reading()
        self._close_if_ended()

    def on_response_complete(self) -> None:
        """Go on with the bytes that have come meanwhile."""
        self._tiny_chunks = 0
        if self._may_begin_next():
            super().on_response_complete()
            self._close_if_ended()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's protocols never keep a connection that the client has ended
        """Return whether the connection stays open; decided when all bytes that have come are parsed."""
        if self._waiting:
            self._ended = True
            return True
        return super().eof_received()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be parsed; close the connection when an answer has begun already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _has_more(self) -> bool:
        return bool(self._waiting or self.conn.trailing_data[0])

    def _limit_head(self) -> None:
        """Close the connection if a head is not complete MAX_HEAD_S after its first bytes."""
        if self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0]:
            self._head_due = None
            return
        if self._head_due is None:
            self._head_due = self.loop.time() + MAX_HEAD_S
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(self._head_due, self.timeout_keep_alive_handler)


class Connection(_Base, HttpToolsProtocol):  # type: ignore[misc]  # as for `_H11.eof_received`
    """Hands on a request when its head is complete and the previous one is answered; holds its bytes until then."""

    _held = b""
    _body_left = 0
    """Bytes of the current request's body that have not come yet."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch whether the client reads."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER_LIMIT, low=0)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._backlog = self._outgoing.add(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._body_left:
            body, data = data[: self._body_left], data[self._body_left :]
            self._body_left -= len(body)
            super().data_received(body)
            if not data:
                return
        searched = max(0, len(self._held) - 3)
        self._held += data
        if self.cycle is None or (self.cycle.response_complete and not self._postponed):
            self._begin(searched)
        elif len(self._held) > MAX_HEAD_BYTES:
            self.flow.pause_reading()  # until the answer is out

    def on_response_complete(self) -> None:
        """Go on with the bytes that have come meanwhile."""
        if self._may_begin_next():
            super().on_response_complete()
            if self._held and not self._body_left and not self.transport.is_closing():
                self._begin(0)
            self._close_if_ended()

    def _has_more(self) -> bool:
        return bool(self._held)

    def _begin(self, searched: int) -> None:
        """Hand on the next request if its head is complete; its end is not in the first `searched` bytes."""
        if self._held[:1] in (b"\r", b"\n"):  # empty lines before a request are ignored (RFC 9112, 2.2)
            self._held, searched = self._held.lstrip(b"\r\n"), 0
        end = END.search(self._held, searched)
        if end is None and len(self._held) <= MAX_HEAD_BYTES:
            if self._held and not searched:
                self._unset_keepalive_if_required()
                self.timeout_keep_alive_task = self.loop.call_later(MAX_HEAD_S, self.timeout_keep_alive_handler)
            return
        size = None if end is None else _plain(self._held[: end.end()])
        data, self._held = self._held, b""
        if end is None or size is None:
            self._hand_over(data)
            return
        whole = end.end() + size
        data, self._held = data[:whole], data[whole:]
        self._body_left = whole - len(data)
        super().data_received(data)

    def _hand_over(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        other = _H11(self.config, self.server_state, self.app_state, self.loop)
        other._backlog = self._backlog
        other._ended, self._ended = self._ended, False
        other.connection_made(self.transport)
        self.transport.set_protocol(other)
        other.data_received(data)


def _plain(head: bytes) -> int | None:
    """Return the length of the body after a head; None when httptools must not parse the request."""
    if (
        len(head) > MAX_HEAD_BYTES
        or not ORIGIN_FORM.match(head)
        or UNUSUAL.search(head)
        or len(HOST.findall(head)) != 1
    ):
        return None
    lengths = PLAIN_LENGTH.findall(head)
    if len(lengths) != len(LENGTH.findall(head)) or len(lengths) > 1:
        return None
    return int(lengths[0]) if lengths else 0
