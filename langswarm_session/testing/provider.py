"""What every `IProviderSession` must hold to, as a class of tests to subclass."""

from __future__ import annotations

from langswarm_session.testing.provider_replies import (
    CapabilityTests,
    FailureTests,
    LifeTests,
    ReplyTests,
)
from langswarm_session.testing.provider_sessions import (
    BreakingOffTests,
    MirrorTests,
    RecordTests,
    ToolTests,
    TurnTests,
)


class ProviderConformance(
    ReplyTests,
    CapabilityTests,
    FailureTests,
    LifeTests,
    TurnTests,
    ToolTests,
    RecordTests,
    BreakingOffTests,
    MirrorTests,
):
    """The conformance tests of a provider.

    Subclass it in a test module under a name that begins with ``Test``, name a model and override
    `make_provider`; everything else is inherited::

        class TestMyProvider(ProviderConformance):
            model = "my-model-1"
            secrets = ("my-key",)

            def make_provider(self):
                return MyProvider("my-key", base_url="http://127.0.0.1:8000", max_retries=0)

    The tests ask a model that does as it is told. Where yours stands in for one, override
    `remembers` and `prompt_call` to say how it answers. The methods `limit_rate`, `go_down`,
    `break_stream` and `make_with_bad_key` make things go wrong; the tests of a failure that you
    cannot provoke are skipped, and say what to override.

    Each test gets the fixtures ``provider`` (one made by `make_provider`, closed afterwards),
    ``manager`` (with it and another provider) and ``session`` (which it answers). Tests of your
    own may be added to the class and use them as well.

    Attributes:
        model: The model to ask for.
        unknown_model: One that does not exist; None to skip the test of it.
        secrets: What must not be seen in any error or repr: the keys.
    """
