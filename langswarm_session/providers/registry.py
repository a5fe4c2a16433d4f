"""The providers of a manager: those it was given, and those made when they are first needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langswarm_session._validation import check_name
from langswarm_session.errors import InvalidInputError, UnknownProviderError
from langswarm_session.interfaces import IProviderSession
from langswarm_session.providers.factory import ProviderSessionFactory

ProviderOptions = str | Mapping[str, Any] | IProviderSession
"""A provider's key, its options, or the provider itself."""


class Providers:
    """Finds a provider by its name.

    Args:
        given: By name: a key, options, or a provider. Those not named here are made with what the
            environment holds.
        fallback: The provider to use where the named one is not configured. None: that is an
            error.

    Raises:
        UnknownProviderError: If one of them is unknown.
        InvalidInputError: If one of them is given by something else.
    """

    def __init__(
        self, given: Mapping[str, ProviderOptions] | None = None, fallback: str | None = None
    ) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise InvalidInputError("providers are given by name: {'openai': key, ...}")
        self._made: dict[str, IProviderSession] = {}
        self._options: dict[str, str | Mapping[str, Any]] = {}
        for name, options in (given or {}).items():
            self._give(name, options)
        if fallback is not None:
            ProviderSessionFactory.check_known(check_name(fallback, "fallback"))
        self._fallback = fallback

    def _give(self, name: str, options: ProviderOptions) -> None:
        if isinstance(options, IProviderSession):
            self._made[name] = options
        elif isinstance(options, str | Mapping):
            ProviderSessionFactory.check_known(name)
            self._options[name] = options
        else:
            raise InvalidInputError(
                f"the provider {name!r} is given by a key, options or an IProviderSession, "
                f"not by {type(options).__name__}"
            )

    def __iter__(self) -> Iterator[IProviderSession]:
        """Those that were given as they are, or have been made."""
        return iter(self._made.values())

    @property
    def names(self) -> list[str]:
        """The names of those that were given or made, sorted."""
        return sorted({*self._made, *self._options})

    def add(self, name: str, provider: IProviderSession) -> None:
        """Use this provider under this name.

        Raises:
            InvalidInputError: If it is not a provider.
        """
        if not isinstance(provider, IProviderSession):
            raise InvalidInputError(f"expected an IProviderSession, not {type(provider).__name__}")
        self._made[name] = provider

    def check(self, name: str) -> None:
        """Raise UnknownProviderError unless a session's provider can be found."""
        if name not in self._made and self._fallback is None:
            ProviderSessionFactory.check_known(name)

    def of(self, name: str, session_id: str | None = None) -> IProviderSession:
        """Return the provider of a session, made if it was not before.

        Args:
            name: The provider's name.
            session_id: The session, for errors; None where it is about none.

        Raises:
            UnknownProviderError: If there is none, as where only a framework wrote to the session.
            ProviderSessionError: If it cannot be made.
        """
        provider = self._made.get(name)
        if provider is not None:
            return provider
        if name not in self._options and self._fallback is not None:
            if name != self._fallback:
                return self.of(self._fallback, session_id)
        elif not ProviderSessionFactory.is_known(name):
            raise UnknownProviderError(
                f"the session has nobody to answer: its provider {name!r} is unknown. It was "
                "written to by a framework; give it a provider with "
                "update_context(provider=..., model=...)",
                session_id=session_id,
                provider=name,
            )
        provider = self._make(name)
        self._made[name] = provider
        return provider

    def _make(self, name: str) -> IProviderSession:
        options = self._options.get(name, {})
        key, others = (options, {}) if isinstance(options, str) else (None, dict(options))
        others.setdefault("api_key", key)
        return ProviderSessionFactory.create_provider_session(name, **others)

    def made(self, name: str) -> IProviderSession | None:
        """Return the provider that was given or made; None if it is still to be made."""
        return self._made.get(name)

    def keyless(self, name: str) -> IProviderSession:
        """Return a provider that needs no key, as it is sent nothing.

        Raises:
            UnknownProviderError: If there is none of that name.
        """
        options = self._options.get(name, {})
        given = {} if isinstance(options, str) else options
        return ProviderSessionFactory.create_provider_session(name, **{**given, "api_key": "-"})
