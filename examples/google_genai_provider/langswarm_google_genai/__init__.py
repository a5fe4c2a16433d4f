"""Google's Gemini as a provider of langswarm-session."""

from langswarm_google_genai.provider import GoogleProviderSession

__all__ = ["GoogleProviderSession"]
