"""What the providers share that speak through a vendor's SDK.

The SDKs of OpenAI and Anthropic are made by one generator, so their clients, errors and pages have
the same shapes; they are told apart by name here, without importing either.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from urllib.parse import (
    SplitResult,
    parse_qsl,
    quote,
    quote_plus,
    unquote,
    urlsplit,
    urlunsplit,
)
from weakref import WeakKeyDictionary

from pydantic_core import from_json

from langswarm_session.errors import (
    ContextLengthError,
    InvalidInputError,
    InvalidReasoningError,
    ProviderAuthenticationError,
    ProviderCapabilityError,
    ProviderQuotaError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SessionError,
    UnknownModelError,
)
from langswarm_session.providers.failures import LOCKED, Failure, Kind

T = TypeVar("T")

FIRST_DELAY, LAST_DELAY = 0.25, 8.0
"""Seconds between two tries, doubling in between; a server's Retry-After goes before them."""

LONGEST_RETRY_AFTER = 60.0
"""The longest Retry-After, in seconds, that is waited for; a longer one is the caller's affair."""

_spread = random.SystemRandom().uniform  # takes no numbers from the program's own `random`

_SHORTEST = 8
"""How many characters a secret has that is struck from texts."""

_KEYS = re.compile(r"\b(?:sk|key|pk|rk)-[A-Za-z0-9*_\-.]{6,}")


class Sdk:
    """A vendor's asynchronous client, one for each event loop that it is used on.

    Args:
        provider: The provider's name.
        make: Makes a client. Called when it is first needed: importing an SDK takes a second.
        secrets: What must not be seen in any message.
        client: A client of the caller's own, used as it is and left open.
    """

    def __init__(
        self,
        provider: str,
        make: Callable[[], Any],
        secrets: tuple[str, ...] = (),
        client: Any = None,
    ) -> None:
        self.provider = provider
        self._make = make
        self._secrets = secrets
        self._given = client
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._once: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    @property
    def client(self) -> Any:
        """The client for the running event loop: its connections are bound to one.

        Raises:
            ProviderAuthenticationError: If there is no key.
            InvalidInputError: If the options do not fit the client.
        """
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._made()
        return client

    def _made(self) -> Any:
        try:
            return self._make()
        except SessionError:
            raise
        except TypeError as error:
            raise InvalidInputError(
                f"invalid options for provider {self.provider!r}: {self.clean(str(error))}"
            ) from None
        except Exception as error:  # noqa: BLE001 - an SDK may raise anything
            raise ProviderAuthenticationError(
                f"the provider {self.provider!r} has no key: give one in providers="
                f"{{{self.provider!r}: key}} or in the SDK's environment variable "
                f"({self.clean(str(error))[:200]})",
                provider=self.provider,
            ) from None

    @property
    def once(self) -> Any:
        """The client without retries of its own: it would wait as long as a server likes.

        It is kept with the client, as a new one asks for the platform in a thread when it is first
        used: 1 ms of each request.
        """
        client, loop = self.client, asyncio.get_running_loop()
        kept = self._once.get(loop)
        if kept is None or kept[0] is not client:
            kept = self._once[loop] = (client, client.with_options(max_retries=0))
        return kept[1]

    async def patiently(
        self, call: Callable[[], Awaitable[Any]], retries: int, model: str = ""
    ) -> Any:
        """Return what a call gives, tried again while that may help.

        Only for what may be done twice.

        Args:
            call: Makes a request with the client `once`.
            retries: How often to try again; a locked conversation is waited for in any case.
            model: The model that is asked for.

        Raises:
            SessionError: Why it failed in the end.
        """
        patience = RetryPolicy(retries)
        while True:
            try:
                with self.errors(model):
                    answer = await call()
                self.check(answer, model)
                return answer
            except SessionError as error:
                if not await patience.waits(error):
                    raise

    async def streamed(
        self, ask: Callable[[], AsyncGenerator[T, None]], retries: int
    ) -> AsyncGenerator[T, None]:
        """Yield the pieces of a stream, asked for again where it fails before its first piece.

        Vendors tell of an overload in streams that began with a 200, and their SDKs try nothing
        again then: github.com/anthropics/anthropic-sdk-python/issues/688.

        Args:
            ask: Makes the request, once, and gives its pieces. Only for what may be done twice.
            retries: How often to ask again.
        """
        patience = RetryPolicy(retries)
        has_begun = False
        while True:
            try:
                async with aclosing(ask()) as pieces:
                    async for piece in pieces:
                        has_begun = True
                        yield piece
                return
            except SessionError as error:
                if has_begun or not await patience.waits(error):
                    raise

    async def counted(self, count: Awaitable[Any]) -> Any:
        """Return what a count of tokens gives.

        Raises:
            ProviderCapabilityError: If the server counts none: it answers 404, 405 or 501.
        """
        try:
            return await count
        except ProviderSessionError as error:
            if refusal_of(error).status not in ABSENT or isinstance(error, UnknownModelError):
                raise
            raise ProviderCapabilityError(
                f"{self.provider} at {self.address} counts no tokens; use the token_counter "
                "'estimate' or 'tiktoken'",
                provider=self.provider,
            ) from error

    def check(self, answer: object, model: str = "") -> None:
        """Raise the error that an answer has in place of a reply, if it has one."""
        body = _failure_in(answer)
        if body is not None:
            raise self._of_failure(Failure(HTTPStatus.OK, body, "no reply, and no reason"), model)

    async def close(self) -> None:
        """Close the running loop's client; those of other loops go with their loops."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        self._once.pop(asyncio.get_running_loop(), None)
        kept = (self._clients, self._once)
        over = [each.pop(loop) for each in kept for loop in [*each] if loop.is_closed()]
        if over:
            # Away from this loop, on which their finalizers would wait for connections of others.
            await asyncio.to_thread(over.clear)
        if client is not None:
            await client.close()

    def clean(self, text: str) -> str:
        """Return the text without secrets."""
        # The key may also be one that the SDK read from the environment.
        keys = (
            getattr(client, "api_key", None) for client in (self._given, *self._clients.values())
        )
        for secret in (*self._secrets, *keys):
            if isinstance(secret, str) and len(secret) >= _SHORTEST:
                text = text.replace(secret, "***")
        return _KEYS.sub("***", text)

    @contextmanager
    def errors(
        self, model: str = "", *, streaming: bool = False, reading: bool = False
    ) -> Iterator[None]:
        """Turn what the SDK raises into errors of this package.

        Args:
            model: The model that was asked for.
            streaming: Whether a stream had been opened.
            reading: Whether an answer is being read, so that a value of the wrong type is the
                server's fault, not the caller's. That is always so in a stream.
        """
        try:
            yield
        except (SessionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - an SDK may raise anything
            unfit = (streaming or reading) and isinstance(error, TypeError | AttributeError)
            made = (
                self.no_answer(type(error).__name__)
                if unfit
                else self.translated(error, model, streaming=streaming)
            )
            # What the SDK says may have the key in it, and would be shown as the cause.
            hidden = self.clean(str(error)) != str(error)
            raise made from (None if hidden else error)

    def translated(
        self, error: Exception, model: str = "", *, streaming: bool = False
    ) -> SessionError:
        """Return the error of this package for one that the SDK raised."""
        names = {kind.__name__ for kind in type(error).__mro__}
        lost = self._of_connection(error, names, streaming)
        if lost is not None:
            return lost
        if "APIResponseValidationError" in names or isinstance(error, ValueError | LookupError):
            return self.no_answer(type(error).__name__)
        if isinstance(error, AttributeError) and isinstance(error.obj, str):
            return self.no_answer("text")  # where the SDK makes an object of what came
        if "APIError" in names:
            return self._of_failure(_failure_of(error), model)
        said = self.clean(str(error))[:_LONGEST]
        if isinstance(error, TypeError):
            return InvalidInputError(f"the provider {self.provider!r} does not take this: {said}")
        return ProviderSessionError(
            f"{self.provider} failed: {type(error).__name__}: {said}", provider=self.provider
        )

    def _of_connection(
        self, error: Exception, names: set[str], streaming: bool
    ) -> ProviderSessionError | None:
        """Return the error for a connection that was not made, was lost or gave nothing in time."""
        where: dict[str, Any] = {"provider": self.provider}
        of_transport = type(error).__module__.startswith(("httpx", "httpcore", "anyio"))
        if "APITimeoutError" in names or (of_transport and "TimeoutException" in names):
            return ProviderTimeoutError(f"{self.provider} gave no answer in time", **where)
        if not (of_transport or "APIConnectionError" in names):
            return None
        if streaming:
            return ProviderStreamError(
                f"the stream of {self.provider} broke off; send the message again", **where
            )
        if of_transport:
            said = self.clean(str(error))[:_LONGEST]
            return ProviderUnavailableError(
                f"{self.provider} broke the connection: {said}", **where
            )
        return ProviderUnavailableError(
            f"{self.provider} cannot be reached at {self.address}; check the base_url and "
            "the network",
            **where,
        )

    def of_event(self, body: object, said: str) -> ProviderSessionError:
        """Return the error for a failure that came in place of a reply."""
        return self._of_failure(Failure(HTTPStatus.OK, body, said), "")

    def no_answer(self, what: str) -> ProviderResponseError:
        """Return the error for a response that is not an answer of this API."""
        return ProviderResponseError(
            f"what {self.address} gave is not an answer of {self.provider}'s API ({what}); "
            "check the base_url",
            provider=self.provider,
        )

    def _of_failure(self, failure: Failure, model: str) -> ProviderSessionError:
        """Return the error for what a server said in place of a reply."""
        if failure.kind in (Kind.NOT_FOUND, Kind.MODEL):
            return self._not_found(failure, model)
        kind, what = _ERRORS[failure.kind]
        text = what.format(
            provider=self.provider,
            address=self.address,
            status=failure.effective_status,
            refused="refused the request" if failure.is_of_request else "gave no reply",
        )
        return kind(
            f"{text} ({self._said(failure)})" if ";" in text else f"{text}: {self._said(failure)}",
            provider=self.provider,
            retriable=failure.is_transient,
            retry_after=failure.retry_after,
        )

    def _not_found(self, failure: Failure, model: str) -> ProviderSessionError:
        """Return the error for a thing that is not there: a model, an item or the API itself."""
        said = self._said(failure)
        if failure.is_of_no_api:
            return self.no_answer(f"404: {said}")
        names_it = "model" in said.lower() and model in said
        if model and (failure.kind is Kind.MODEL or names_it):
            return UnknownModelError(
                f"{self.provider} has no model {model!r}, or not for this key; name another with "
                f"switch_provider() ({said})",
                provider=self.provider,
            )
        return ProviderRequestError(
            f"{self.provider} knows no such thing: {said}", provider=self.provider
        )

    def _said(self, failure: Failure) -> str:
        """Return what the server said, without secrets and not too long."""
        text = failure.message
        if "<html" in text.lower():
            text = "a web page, and no answer of the API"
        return self.clean(text)[:_LONGEST]

    @property
    def address(self) -> str:
        """Where requests go, without names, passwords and query."""
        client = self._given
        if client is None:
            client = next(iter(self._clients.values()), None)
        url = str(getattr(client, "base_url", "") or "its address")
        return re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])


_ERRORS: dict[Kind, tuple[type[ProviderSessionError], str]] = {
    Kind.LOCKED: (
        ProviderRequestError,
        "{provider} is busy with another request of this conversation; send it again later",
    ),
    Kind.QUOTA: (
        ProviderQuotaError,
        "{provider} has no credit left for this key, or a limit of spending is reached; add credit",
    ),
    Kind.LENGTH: (ContextLengthError, "the request is too long for {provider}"),
    Kind.REASONING: (
        InvalidReasoningError,
        "{provider} does not accept reasoning that the request sends back",
    ),
    Kind.KEY: (
        ProviderAuthenticationError,
        "{provider} refused the key; check it, and that it is one for {address}",
    ),
    Kind.FORBIDDEN: (
        ProviderAuthenticationError,
        "{provider} does not allow this to the key; check it, and that it is one for {address}",
    ),
    Kind.ABSENT: (
        ProviderCapabilityError,
        "{provider} at {address} does not do this (HTTP {status})",
    ),
    Kind.RATE_LIMIT: (
        ProviderRateLimitError,
        "{provider} takes no more requests for now",
    ),
    Kind.TIMEOUT: (ProviderTimeoutError, "{provider} gave up waiting"),
    Kind.UNAVAILABLE: (ProviderUnavailableError, "{provider} is down ({status})"),
    Kind.REFUSED: (ProviderRequestError, "{provider} {refused}"),
}
"""Which error each kind of failure is, and how it is told."""

ABSENT = (404, 405, 501)
"""The statuses of servers that have no such endpoint."""

_LONGEST = 500
"""How much of what a server says is told, in characters."""


def _failure_of(error: Exception) -> Failure:
    """Return what the server said that made an SDK raise this."""
    response = getattr(error, "response", None)
    return Failure(
        getattr(error, "status_code", None),
        getattr(error, "body", None),
        str(error),
        getattr(response, "headers", None),
    )


LOCK_WAIT = 60.0
"""How long to wait, in seconds, for a conversation that another request holds."""


class Refusal(NamedTuple):
    """What a server said in place of an answer: its HTTP status, and the error's code and field."""

    status: int | None
    code: str
    param: str


def refusal_of(error: SessionError) -> Refusal:
    """Return what a server said that made this error, just caught."""
    cause = error.__cause__ or error.__context__
    return Refusal(
        getattr(cause, "status_code", None), _field(cause, "code"), _field(cause, "param")
    )


def _field(error: object, name: str) -> str:
    return str(getattr(error, name, None) or "")


async def whole_answer(sdk: Sdk, stream: Any) -> dict[str, Any] | None:
    """Return the answer that came whole where a stream was asked for; None if a stream came.

    Gateways that do not stream answer so, and routers that have an error to tell.

    Raises:
        SessionError: If it is an error.
    """
    response = getattr(stream, "response", None)
    kind = str((getattr(response, "headers", None) or {}).get("content-type", ""))
    if response is None or kind.partition(";")[0].strip().lower() != "application/json":
        return None
    with sdk.errors(streaming=True):
        answer = from_json(await response.aread())
    if not isinstance(answer, dict):
        raise sdk.no_answer("no stream but JSON")
    sdk.check(answer)
    return answer


async def opened(sdk: Sdk, stream: Any) -> Any:
    """Return an SDK's stream, if it is one; else it is closed.

    Raises:
        ProviderResponseError: If the response is not a stream of events: SDKs find none in it, and
            it ends as if it had broken off.
    """
    headers = getattr(getattr(stream, "response", None), "headers", None) or {}
    kind = str(headers.get("content-type", ""))
    if not hasattr(stream, "__aiter__") or "html" in kind or "json" in kind:
        if hasattr(stream, "close"):
            await stream.close()
        raise sdk.no_answer(f"no stream but {kind or type(stream).__name__}")
    return stream


def plain(sdk: Sdk, answer: Any) -> dict[str, Any]:
    """Return an SDK's answer as plain data: what was set, and only that.

    Raises:
        ProviderResponseError: If it is not an answer of the API: SDKs pass on whatever came.
    """
    dump = getattr(answer, "model_dump", None)
    if dump is None:
        raise sdk.no_answer("no JSON object")
    dumped: dict[str, Any] = dump(mode="json", exclude_unset=True, warnings=False)
    sdk.check(dumped)
    return dumped


def _failure_in(answer: object) -> object | None:
    """Return what an answer has in place of a reply, though its status was 200; None if it is one.

    Routers and gateways answer so: openrouter.ai/docs/api/reference/errors-and-debugging,
    github.com/BerriAI/litellm/issues/8448, github.com/runpod-workers/worker-vllm/issues/57. A
    response of OpenAI's, and an event of a session, tell of a failure in a way of their own.
    """
    get = answer.get if isinstance(answer, Mapping) else partial(_attribute, answer)
    if get("object") == "error":
        return {name: get(name) for name in ("message", "type", "code", "param")}
    is_told = get("object") != "response" and get("type") in (None, "error")
    return get("error") or None if is_told else None


def _attribute(answer: object, name: str) -> object:
    return getattr(answer, name, None)


class RetryPolicy:
    """How often, and for how long, one thing is tried again.

    Args:
        retries: How often; waiting for a locked conversation does not count.
    """

    def __init__(self, retries: int) -> None:
        self._left = retries
        self._tried = 0
        self._until = time.monotonic() + LOCK_WAIT

    def is_over(self, error: SessionError) -> bool:
        """Return whether this error is the last word."""
        if refusal_of(error).code == LOCKED:
            return time.monotonic() > self._until
        if not (isinstance(error, ProviderSessionError) and error.retriable) or self._left <= 0:
            return True
        # A server may ask for more patience than there is.
        return (getattr(error, "retry_after", None) or 0.0) > LONGEST_RETRY_AFTER

    async def waits(self, error: SessionError) -> bool:
        """Wait before the next try, and return True; False immediately if there is none."""
        if self.is_over(error):
            return False
        self._left -= refusal_of(error).code != LOCKED
        await asyncio.sleep(delay(self._tried, error))
        self._tried += 1
        return True

    def end(self) -> None:
        """Try nothing again."""
        self._left = 0


def delay(attempt: int, error: SessionError) -> float:
    """Seconds to wait before the next try."""
    asked = getattr(error, "retry_after", None)
    if asked is not None:
        return float(min(asked, LONGEST_RETRY_AFTER))
    grown: float = min(FIRST_DELAY * 2**attempt, LAST_DELAY)
    return grown * _spread(0.5, 1.0)


def check_options(provider: str, options: Mapping[str, Any], reserved: Mapping[str, str]) -> None:
    """Raise InvalidInputError if a caller's keyword is one that the session decides."""
    for name in options:
        if name in reserved:
            raise InvalidInputError(
                f"{name} is not to be given to the provider {provider!r}: {reserved[name]}"
            )


def client_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's options with an address that may be shown: clients log addresses.

    Its password goes into a header, and its query into ``default_query``: the clients put their
    own path behind whatever the address ends with.

    Raises:
        InvalidInputError: If the address is not a URL, or headers or query are not a mapping.
    """
    parts = _address(options)
    headers, query = _named(options, "default_headers"), _named(options, "default_query")
    changed = dict(options)
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        basic = base64.b64encode(login.encode()).decode()
        changed["default_headers"] = {"Authorization": f"Basic {basic}", **headers}
    if parts.query:
        changed["default_query"] = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **query}
    if parts.username is not None or parts.query:
        netloc = parts.netloc.rpartition("@")[2]
        changed["base_url"] = urlunsplit(parts._replace(netloc=netloc, query="", fragment=""))
    return changed


def _address(options: Mapping[str, Any]) -> SplitResult:
    try:
        parts = urlsplit(str(options.get("base_url") or ""))
        _ = parts.port  # is read only when it is asked for
    except ValueError:
        # What it is stays unsaid: it may have a password in it.
        raise InvalidInputError("base_url is not a URL; write https://host:port/path") from None
    return parts


def _named(options: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = options.get(name) or {}
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} must be a dict, not {type(value).__name__}")
    return value


def secrets_of(keys: tuple[object, ...], options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what of a client's options must not be seen.

    These are keys, headers, the address's password and what its query says. A short one is a word
    that texts have (servers that need no key are given ``x`` or ``test``), and guards nothing.
    """
    changed = client_options(options)
    headers = changed.get("default_headers") or {}
    password = _address(options).password
    words = [word for value in headers.values() for word in str(value).split()]
    query = [
        text
        for name, value in (changed.get("default_query") or {}).items()
        if not str(name).endswith("version")
        for text in (str(value), quote(str(value)), quote_plus(str(value)))
    ]
    given = [*keys, *headers.values(), *words, password, *query]
    return tuple(each for each in given if isinstance(each, str) and len(each) >= _SHORTEST)
