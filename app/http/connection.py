"""One connection: read by httptools, which costs less than h11; by h11 where httptools would be wrong or unbounded.

    bytes --whole head--> plain: head and body to httptools, one request at a time
                      --> anything else: this connection is h11's from now on

httptools loses the body of a request that offers to upgrade to HTTP/2, as some clients do by default, takes heads and
trailers of any length, and does not mind a missing Host. So it is only ever given requests that have none of this.

A client may end its side of the connection and read on. It gets the answers to what it has sent whole, unless a
request waits for its turn: see `Context.half_close`. The next request begins when the client has taken the answer
before it, and who takes none is cut off (`app.http.outgoing`).
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

HEAD_BYTES = 64 * 1024
HEAD_S = 10.0
"""Within this time after its first bytes a head must be whole."""
SLICE = 8 * 1024
TINY_CHUNK = re.compile(rb"\r\n0*[0-9a-fA-F](?=\r\n)")
MAX_TINY_CHUNKS = 2000
"""Chunks of less than 16 bytes in one body. Each costs h11 as much as a long one."""
END = re.compile(rb"\r?\n\r?\n")
# The target of a request names no host; where it does, that host counts (RFC 9112, 3.2.2), and httptools would drop it.
ORIGIN_FORM = re.compile(rb"[A-Z]+ [/*]")
UNUSUAL = re.compile(rb"\n(?:upgrade|transfer-encoding)[ \t]*:", re.IGNORECASE)
HOST = re.compile(rb"\nhost:", re.IGNORECASE)
LENGTH = re.compile(rb"\ncontent-length", re.IGNORECASE)
PLAIN_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)


class _Line(asyncio.Protocol):
    """What both protocols do for a client that does not read, or has ended its side of the connection."""

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
    """Whether an answer is complete, and what follows waits until the client has taken it."""

    @property
    def _outgoing(self) -> Outgoing:
        return self.app_state[OUTGOING]  # type: ignore[no-any-return]

    def _has_more(self) -> bool:
        """Tell whether more has come than the request that is answered, or was answered last."""
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
        """Tell the request that is not answered yet."""
        self._outgoing.remove(self._backlog)
        super().connection_lost(exc)
        if self.cycle is not None and not self.cycle.response_complete:
            context = self.scope["state"].get("context")
            if context is not None and context.leave is not None:
                context.leave()

    def eof_received(self) -> bool:
        """Tell whether the connection stays open although the client sends nothing more."""
        self._ended = True
        if self.cycle is None or self.cycle.response_complete:
            return self._postponed and self._has_more()
        if self.cycle.more_body:
            return False
        state = self.scope["state"]
        if "context" in state:
            return bool(state["context"].half_close(self.transport.close))
        state["hang_up"] = self.transport.close  # its task is about to begin
        return True

    def _is_taken(self) -> bool:
        """Tell whether to go on after an answer now; else that happens when the client has taken it."""
        self._postponed = self.flow.write_paused and not self.transport.is_closing()
        return not self._postponed

    def _close_if_ended(self) -> None:
        if self._ended and not self.eof_received():
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: to offer HTTP/2 is no fault, and the answer is HTTP/1.1's."""


class _H11(_Line, H11Protocol):
    """Reads SLICE bytes in one turn of the loop: a body in chunks of one byte takes it long."""

    _waiting = b""
    _tiny_chunks = 0
    """Of the running request's body."""
    _head_due: float | None = None
    """Until when the head that has begun must be whole."""

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
            self.send_400_response("Chunks of a few bytes are too many.")
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
        """Go on with what has come meanwhile."""
        self._tiny_chunks = 0
        if self._is_taken():
            super().on_response_complete()
            self._close_if_ended()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's never keep a connection at its end
        """Tell whether the connection stays open; judged when all that has come is read."""
        if self._waiting:
            self._ended = True
            return True
        return super().eof_received()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read; a request whose answer has begun cannot be answered anew."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _has_more(self) -> bool:
        return bool(self._waiting or self.conn.trailing_data[0])

    def _limit_head(self) -> None:
        """Give a head that has begun HEAD_S from its first bytes, however slowly the others come."""
        if self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0]:
            self._head_due = None
            return
        if self._head_due is None:
            self._head_due = self.loop.time() + HEAD_S
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(self._head_due, self.timeout_keep_alive_handler)


class Connection(_Line, HttpToolsProtocol):  # type: ignore[misc]  # as for `_H11.eof_received`
    """Hands on a request when its head is whole and the one before is answered; holds back the bytes until then."""

    _held = b""
    _body_left = 0
    """Bytes of the running request's body that have not come yet."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch what the client takes."""
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
        elif len(self._held) > HEAD_BYTES:
            self.flow.pause_reading()  # until the answer is out

    def on_response_complete(self) -> None:
        """Go on with what has come meanwhile."""
        if self._is_taken():
            super().on_response_complete()
            if self._held and not self._body_left and not self.transport.is_closing():
                self._begin(0)
            self._close_if_ended()

    def _has_more(self) -> bool:
        return bool(self._held)

    def _begin(self, searched: int) -> None:
        """Hand on the next request, if its head is whole; up to `searched` it was looked for before."""
        if self._held[:1] in (b"\r", b"\n"):  # empty lines before a request count for nothing (RFC 9112, 2.2)
            self._held, searched = self._held.lstrip(b"\r\n"), 0
        end = END.search(self._held, searched)
        if end is None and len(self._held) <= HEAD_BYTES:
            if self._held and not searched:
                self._unset_keepalive_if_required()
                self.timeout_keep_alive_task = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)
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
    """Return how long the body is that follows a head; None when httptools is not to be trusted with it."""
    if len(head) > HEAD_BYTES or not ORIGIN_FORM.match(head) or UNUSUAL.search(head) or len(HOST.findall(head)) != 1:
        return None
    lengths = PLAIN_LENGTH.findall(head)
    if len(lengths) != len(LENGTH.findall(head)) or len(lengths) > 1:
        return None
    return int(lengths[0]) if lengths else 0
