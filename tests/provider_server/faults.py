"""Faults, the record of requests, and refused keys: one ASGI middleware around both APIs.

`on` is "METHOD /v1/path": `*` stands for one path segment (or the method), `**` for anything.
A handler finds the fault that applies to its request in `request.scope["fault"]` (or None), and
its options in `.options`. A streaming handler stores its outcome right before or, better, right
after it yields its last event: that is what `work=True` and `work=False` rely on.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .worlds import Json, World, key_of, world_for

PEERS: dict[tuple[str, int], Protocol] = {}
NOT_KEPT = {"authorization", "x-api-key", "cookie", "host", "connection", "accept-encoding"}

ALIASES: dict[str, dict[str, Json]] = {
    "rate_limit": {
        "openai": {"status": 429, "type": "requests", "code": "rate_limit_exceeded"},
        "anthropic": {"status": 429, "type": "rate_limit_error"},
    },
    "overloaded": {
        "openai": {"status": 503, "type": "server_error", "code": "server_is_overloaded"},
        "anthropic": {"status": 529, "type": "overloaded_error"},
    },
    "server_error": {
        "openai": {"status": 500, "type": "server_error"},
        "anthropic": {"status": 500, "type": "api_error"},
    },
    "conversation_locked": {
        "openai": {
            "status": 400,
            "type": "invalid_request_error",
            "code": "conversation_locked",
            "param": "conversation",
            "message": "Another process is currently operating on this conversation. "
            "Please retry in a few seconds.",
        },
        "anthropic": {"status": 409, "type": "conflict_error"},
    },
}
KINDS = {
    *("status", "status_after", "cut_before", "cut_after", "cut_stream", "slow"),
    *("stall_stream", "stream_error", "garbage", "html"),
    *ALIASES,
}


class Protocol(H11Protocol):
    """uvicorn's protocol, kept by its peer so that a fault can drop the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the connection."""
        super().connection_made(transport)
        self.lost = asyncio.Event()
        self.peer = transport.get_extra_info("peername")[:2]
        PEERS[self.peer] = self

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        PEERS.pop(self.peer, None)
        self.lost.set()
        super().connection_lost(exc)


@dataclass
class Fault:
    """One thing that is to go wrong."""

    on: str
    kind: str
    times: int = 1
    after: int = 0
    options: Json = field(default_factory=dict)

    def matches(self, method: str, path: str) -> bool:
        """Whether the fault is meant for this request."""
        if self.on in {"*", "**"}:
            return True
        parts = re.split(r"(\*\*|\*)", self.on)
        wild = {"**": ".*", "*": "[^/ ]*"}
        pattern = "".join(wild.get(part, re.escape(part)) for part in parts)
        return re.fullmatch(pattern, f"{method} {path}") is not None


def take_fault(world: World, method: str, path: str) -> Fault | None:
    """The first fault that is due for this request; `times` below 0 is for ever."""
    due: Fault | None = None
    for fault in world.faults:
        if fault.times == 0 or not fault.matches(method, path):
            continue
        if fault.after > 0:
            fault.after -= 1
        elif due is None:
            fault.times -= 1
            due = fault
    return due


def error_body(vendor: str, options: Json) -> Json:
    """An error as the vendor writes it."""
    message = options.get("message") or "The server had an error (made by a fault)."
    kind = options.get("type")
    if vendor == "anthropic":
        error = {"type": kind or "api_error", "message": message} | options.get("extra", {})
        return {"type": "error", "error": error, "request_id": "req_fault"}
    error = {"message": message, "type": kind or "server_error"}
    return {"error": error | {"param": options.get("param"), "code": options.get("code")}}


def error_response(vendor: str, status: int, options: Json) -> Response:
    """A whole error answer as the vendor sends it; `body` replaces the vendor's."""
    headers = {"request-id" if vendor == "anthropic" else "x-request-id": "req_fault"}
    headers |= {name: str(value) for name, value in (options.get("headers") or {}).items()}
    if options.get("retry_after") is not None:
        headers["retry-after"] = str(options["retry_after"])
    body = options["body"] if "body" in options else error_body(vendor, options)
    return JSONResponse(body, status, headers)


def refused_key(vendor: str, key: str | None) -> Response:
    """The vendor's 401."""
    if vendor == "anthropic":
        options = {"type": "authentication_error", "message": "invalid x-api-key"}
    else:
        message = f"Incorrect API key provided: {(key or '')[:3]}***."
        options = {"type": "invalid_request_error", "code": "invalid_api_key", "message": message}
    return error_response(vendor, 401, options)


def error_event(vendor: str, path: str, number: int, options: Json) -> bytes:
    """The vendor's error in mid-stream."""
    message = options.get("message") or "The server had an error while processing your request."
    if vendor == "anthropic":
        options = {"type": "overloaded_error", "message": "Overloaded"} | options
        data = error_body(vendor, options)
    elif path.endswith("/chat/completions"):
        return f"data: {json.dumps(error_body(vendor, options))}\n\n".encode()
    else:
        data = {"type": "error", "code": options.get("code", "server_error"), "message": message}
        data |= {"param": None, "sequence_number": number}
        if options.get("nested"):  # as it is seen in the wild, other than the SDK's type has it
            data = {"type": "error", "sequence_number": number} | error_body(vendor, options)
    return f"event: error\ndata: {json.dumps(data)}\n\n".encode()


class Cut(Exception):  # noqa: N818 - not an error: it ends a handler whose work is not wanted
    """The answer is over; raised into a handler whose work must not be finished."""


async def drop(scope: Scope, *, reset: bool = False) -> None:
    """Drop the client's TCP connection, after what was written has gone out."""
    protocol = PEERS.get(tuple(scope["client"]))
    if protocol is None:
        return
    transport = protocol.transport
    while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(0.001)  # a transport tells nobody when it is empty
    if reset:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
    await protocol.lost.wait()


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


def as_json(raw: bytes) -> Any:
    """The body as JSON, None when it is none."""
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None


class Exchange:
    """One request and its answer, with the fault that applies to it."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes,
        vendor: str,
        fault: Fault | None,
    ) -> None:
        self.scope, self.body, self.vendor, self.fault = scope, body, vendor, fault
        self.options = fault.options if fault else {}
        self.kind = fault.kind if fault else ""
        self._receive, self._send = receive, send
        self._read = self._dead = self._stream = False
        self._rest, self._events = b"", 0
        self.status: int | None = None
        self.answer = b""

    @property
    def works_on(self) -> bool:
        """Whether the handler is to finish though the client gets nothing more."""
        return bool(self.options.get("work")) or self.kind in {"cut_after", "status_after"}

    async def receive(self) -> Message:
        """The body once, then the disconnect (never, when the work goes on regardless)."""
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        if self.works_on or self._dead:
            await asyncio.Event().wait()
        return await self._receive()

    async def send(self, message: Message) -> None:
        """One message of the handler, with the fault worked into it."""
        if self._dead:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._stream = kind.startswith(b"text/event-stream")
            if self.kind not in {"cut_after", "status_after"}:
                await self._send(message)
        elif self.kind in {"cut_after", "status_after"}:
            return
        elif self._stream:
            await self._send_events(message)
        else:
            if (self.status or 0) >= 400:
                self.answer += message.get("body", b"")
            await self._send(message)

    async def _send_events(self, message: Message) -> None:
        """Pass a stream's events on one by one."""
        *events, self._rest = (self._rest + message.get("body", b"")).split(b"\n\n")
        for event in events:
            await self._before_event()
            if self._dead:
                return
            await self._send_piece(event + b"\n\n")
            self._events += 1
        if not message.get("more_body"):
            await self._before_event()
            if not self._dead:
                await self._send_piece(self._rest, more=False)

    async def _before_event(self) -> None:
        """Wait, break off, stall or fail before the next event, as the fault says."""
        if self.kind == "slow" and self._events:
            await asyncio.sleep(self.options.get("each", 0))
        broken = self.kind in {"cut_stream", "stall_stream", "stream_error"}
        if not broken or self._events < self.options.get("at", 0):
            return
        self._dead = True
        if self.kind == "cut_stream":
            await drop(self.scope, reset=self.options.get("reset", False))
        elif self.kind == "stream_error":
            path = self.scope["path"]
            event = error_event(self.vendor, path, self._events, self.options)
            await self._send_piece(event)
            await self._send_piece(b"", more=False)
        elif not self.works_on:
            await self.gone()
        if not self.works_on:
            raise Cut

    async def _send_piece(self, piece: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def gone(self) -> None:
        """Wait until the client has given up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, response: Response) -> None:
        """Send an answer of the fault's own."""
        self.status = response.status_code
        await response(self.scope, self._receive, self._send)


def only_cut(error: BaseException) -> bool:
    """Whether an error is nothing but `Cut`, however task groups have wrapped it."""
    if isinstance(error, BaseExceptionGroup):
        return all(only_cut(one) for one in error.exceptions)
    return isinstance(error, Cut)


class Faults:
    """The middleware: refuses bad keys, plays the faults, keeps every request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        vendor = scope.get("path", "").split("/")[1] if scope["type"] == "http" else ""
        if vendor not in {"openai", "anthropic"}:
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        key, path = key_of(connection), scope["path"].removeprefix(f"/{vendor}")
        world = world_for(key or "")
        body = await read_body(receive)
        record: Json = {"vendor": vendor, "method": scope["method"], "path": path}
        record["query"] = dict(connection.query_params)
        record["headers"] = {k: v for k, v in connection.headers.items() if k not in NOT_KEPT}
        record |= {"body": as_json(body), "bytes": len(body), "status": None, "fault": None}
        world.requests.append(record)
        fault = take_fault(world, scope["method"], path)
        record["fault"] = fault.kind if fault else None
        scope["fault"] = fault
        exchange = Exchange(scope, receive, send, body, vendor, fault)
        try:
            if key is None or key.startswith("bad"):
                await exchange.respond(refused_key(vendor, key))
            else:
                await self._play(exchange)
        finally:
            record["status"] = exchange.status
        if exchange.answer:
            error = as_json(exchange.answer)
            kept = {"method": scope["method"], "path": path, "status": exchange.status}
            world.refused.append(kept | {"error": error, "body": record["body"]})

    async def _play(self, exchange: Exchange) -> None:
        """Answer one request, in the way its fault says."""
        kind, options, vendor = exchange.kind, exchange.options, exchange.vendor
        if kind in ALIASES:
            options = ALIASES[kind][vendor] | options
            await exchange.respond(error_response(vendor, options["status"], options))
        elif kind == "status":
            await exchange.respond(error_response(vendor, options["status"], options))
        elif kind == "garbage":
            await exchange.respond(Response(b"\x00{not json", 200, None, "application/json"))
        elif kind == "html":
            page = "<html><body><h1>502 Bad Gateway</h1></body></html>"
            await exchange.respond(Response(page, options.get("status", 200), None, "text/html"))
        elif kind == "cut_before":
            await drop(exchange.scope, reset=options.get("reset", False))
        else:
            await self._work(exchange)

    async def _work(self, exchange: Exchange) -> None:
        """Let the handler work, then do what the fault says comes after."""
        kind, options, vendor = exchange.kind, exchange.options, exchange.vendor
        if kind == "slow":
            await asyncio.sleep(options.get("seconds", 0))
        try:
            await self.app(exchange.scope, exchange.receive, exchange.send)
        except BaseException as error:
            if not only_cut(error):
                raise
        if kind == "cut_after":
            exchange.status = None
            await drop(exchange.scope, reset=options.get("reset", False))
        elif kind == "status_after":
            await exchange.respond(error_response(vendor, options["status"], options))
        elif kind == "stall_stream" and exchange._dead and exchange.works_on:
            await exchange.gone()
