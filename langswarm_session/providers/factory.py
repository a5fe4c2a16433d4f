"""Providers by name and by plug-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from langswarm_session import _plugins as plugins
from langswarm_session.errors import (
    InvalidInputError,
    ProviderSessionError,
    UnknownProviderError,
)
from langswarm_session.interfaces import IProviderSession

ENTRY_POINT_GROUP = "langswarm_session.providers"
"""The entry-point group in which a plug-in names its provider class."""


def _mock(*, api_key: str | None = None, **options: Any) -> IProviderSession:  # noqa: ARG001
    from langswarm_session.providers.mock import MockProviderSession

    return MockProviderSession(**options)


def _openai(*, api_key: str | None = None, **options: Any) -> IProviderSession:
    from langswarm_session.providers.openai.provider import OpenAIProviderSession

    return OpenAIProviderSession(api_key, **options)


def _anthropic(*, api_key: str | None = None, **options: Any) -> IProviderSession:
    from langswarm_session.providers.anthropic.provider import AnthropicProviderSession

    return AnthropicProviderSession(api_key, **options)


class ProviderSessionFactory:
    """Makes providers by name. Others are added by `register` or by an entry point."""

    _makers: ClassVar[dict[str, Callable[..., IProviderSession]]] = {
        "anthropic": _anthropic,
        "mock": _mock,
        "openai": _openai,
    }

    @classmethod
    def register(cls, name: str, maker: Callable[..., IProviderSession]) -> None:
        """Add a provider, or replace one.

        Args:
            name: What it will be known by.
            maker: Makes it from ``api_key`` and its options.
        """
        cls._makers[name] = maker

    @classmethod
    def is_known(cls, name: str) -> bool:
        """Return whether there is a provider of this name."""
        return name in cls._makers or name in plugins.names(ENTRY_POINT_GROUP)

    @classmethod
    def check_known(cls, name: str) -> None:
        """Raise UnknownProviderError unless there is a provider of this name."""
        if not cls.is_known(name):
            raise cls._unknown(name)

    @classmethod
    def create_provider_session(
        cls,
        name: str,
        api_key: str | None = None,
        *,
        fallback: str | None = None,
        **options: Any,
    ) -> IProviderSession:
        """Make a provider.

        Args:
            name: ``openai``, ``anthropic``, ``mock``, or the name of a plug-in.
            api_key: Its key; what the environment holds when None.
            fallback: The provider to make where there is none of that name.
            **options: What the provider takes.

        Raises:
            UnknownProviderError: If there is no provider of that name, and no fallback.
            InvalidInputError: If the options do not fit it.
        """
        maker = cls._makers.get(name) or plugins.load(ENTRY_POINT_GROUP, name, ProviderSessionError)
        if maker is None:
            if fallback is not None:
                return cls.create_provider_session(fallback)
            raise cls._unknown(name)
        try:
            made: IProviderSession = maker(api_key=api_key, **options)
        except TypeError as error:
            raise InvalidInputError(f"invalid options for provider {name!r}: {error}") from error
        return made

    @classmethod
    def _unknown(cls, name: str) -> UnknownProviderError:
        known = ", ".join(sorted({*cls._makers, *plugins.names(ENTRY_POINT_GROUP)}))
        return UnknownProviderError(
            f"there is no provider {name!r}; there are: {known}. Others are added with "
            "ProviderSessionFactory.register() or add_provider_session()",
            provider=name,
        )
