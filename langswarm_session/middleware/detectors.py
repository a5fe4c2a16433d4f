"""Patterns for personal data and secrets in text.

A message may have been written to make a pattern slow, so every pattern here takes time in
proportion to the text. Either a match has a bounded length, or a match that fails is not tried
again from within the characters that it consumed: it begins only where a run of such characters
begins, and possessive quantifiers give nothing back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Span = tuple[int, int]
"""The beginning and the end of a place in a text."""

_PIECE = 65_536
"""How many characters are searched before other threads may run: a search holds the interpreter."""

_BOUNDARY = re.compile(r'[\r\n\t",;<>{}|\[\]]')


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of data, and how to find it in a text.

    Attributes:
        name: What replaces a match: ``[email]``.
        pattern: A regular expression. Its time should grow no faster than the text.
        check: What else must hold of a match.
        in_pieces: Whether a match never contains a line break, a tab or one of ``" , ; < > { } |``
            and brackets. A long text is then searched in pieces, and other threads run in between.
        folds: Whether the pattern finds other forms of a character too: it sees no-break spaces as
            spaces, typographic hyphens as ``-``, and full-width and other digits as ASCII ones.
    """

    name: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None
    in_pieces: bool = False
    folds: bool = False

    def spans(self, text: str) -> Iterator[Span]:
        """Yield the places where the data stands, in order and without overlap."""
        for match in self.matches(text):
            if match[0] and (self.check is None or self.check(match[0])):
                yield match.span()

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Yield what the pattern matches."""
        if self.folds and not text.isascii():
            text = folded(text)
        start = 0
        while self.in_pieces and len(text) - start > _PIECE:
            boundary = _BOUNDARY.search(text, start + _PIECE)
            if boundary is None:
                break
            yield from self.pattern.finditer(text, start, boundary.end())
            start = boundary.end()
        yield from self.pattern.finditer(text, start)


_FORMS = {
    " ": "\u00a0\u2000-\u200a\u202f\u205f\u3000",
    "-": "\u00ad\u2010-\u2015\u2212\ufe58\ufe63\uff0d",
    "@": "\ufe6b\uff20",
    ".": "\uff0e",
    "+": "\uff0b",
    "(": "\uff08",
    ")": "\uff09",
}
_DIGITS = "\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\uff10-\uff19"
_FORM = re.compile("|".join(f"([{forms}])" for forms in (_DIGITS, *_FORMS.values())))


def folded(text: str) -> str:
    """Return the text with the plain forms of its spaces, hyphens and digits, as long as it was."""
    return _FORM.sub(_plain, text)


def _plain(match: re.Match[str]) -> str:
    group = match.lastindex or 0
    return str(int(match[0])) if group == 1 else [*_FORMS][group - 2]


def passes_luhn(digits: str) -> bool:
    """Return whether the digits end with a card's check digit (ISO/IEC 7812-1, annex B)."""
    numbers = "".join(char for char in digits if char in "0123456789")
    doubled = numbers[-2::-2].translate(_DOUBLED)
    return sum(map(int, numbers[-1::-2] + doubled)) % 10 == 0


_DOUBLED = str.maketrans("0123456789", "0246813579")
"""Twice each digit, the sum of its digits."""


class _CardDetector(Detector):
    """Payment card numbers, also among other numbers: ``12 4111 1111 1111 1111``.

    The pattern finds a run of digits with short separators between them. A card's number begins
    and ends where a group of the run does.
    """

    def spans(self, text: str) -> Iterator[Span]:
        """Yield the places of card numbers."""
        text = text if text.isascii() else folded(text)
        for match in self.matches(text):
            groups = [group.span() for group in _GROUP.finditer(text, *match.span())]
            if _IN_WORD.match(text, match.end()):
                groups.pop()
            first = 0
            while first < len(groups):
                last = _last_group(text, groups, first)
                if last is None:
                    first += 1
                else:
                    yield groups[first][0], groups[last][1]
                    first = last + 1


_GROUP = re.compile(r"[0-9]+")
_IN_WORD = re.compile(r"\w")
_SHORTEST, _LONGEST = 13, 19
"""How many digits a card's number has (ISO/IEC 7812-1 allows 8 to 19; cards in use have 13)."""


def _last_group(text: str, groups: list[Span], first: int) -> int | None:
    """Return the last group of the longest card number that begins with a group, if one does."""
    digits = ""
    found = None
    for place in range(first, len(groups)):
        start, end = groups[place]
        if len(digits) + end - start > _LONGEST:
            break
        digits += text[start:end]
        if len(digits) >= _SHORTEST and _is_card(digits):
            found = place
    return found


def _is_card(digits: str) -> bool:
    # 0 is no issuer's, 1 only UATP's, with 15 digits; times since 1970 begin with 1. See
    # https://en.wikipedia.org/wiki/Payment_card_number#Issuer_identification_number_(IIN)
    issued = digits[0] not in "01" or (digits[0] == "1" and len(digits) == 15)
    return issued and passes_luhn(digits)


# Inside JSON text a line break is "\n": its letter belongs to no word that follows it.
_WORD_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
# A short prefix stands by chance in a payload such as encrypted reasoning, in base64.
_NO_PAYLOAD = r"(?<![\w+/-]{24})"
_LOCAL_START = r"(?:(?<![\w.+-])(?<![\w.+-]')(?!(?<=\\)[nrt])|(?<=\\[nrt]))"

EMAIL = Detector(
    "email",
    re.compile(
        rf"{_LOCAL_START}[\w.+-]++(?:'[\w.+-]++)*+(?:@|%40)"
        r"[\w-]+(?:\.[\w-]+)*\.(?:xn--[A-Za-z0-9-]+|[^\W\d_]{2,})"
    ),
    in_pieces=True,
    folds=True,
)
"""E-mail addresses, in URLs too, where the @ is written ``%40``."""

# The digits after a decimal point are part of a number, and those after "Tel." are not.
_NUMBER_START = r"(?:(?<!\w)(?:(?<!\.)|(?<=[A-Za-z]\.))(?<![0-9]:)|(?<=\\[nrt]))"
_DATE = r"\d{2}[.-]\d{2}[.-](?:19|20)\d{2}(?!\d)"

CARD = _CardDetector(
    "card",
    re.compile(
        rf"{_NUMBER_START}(?:[0-9]{{4}}(?:\.[0-9]{{4}}){{3}}(?!\.?\w)"
        r"|[0-9]++(?:(?:[ -]{1,2}| - )[0-9]++)*+)"
    ),
    in_pieces=True,
)

PHONE = Detector(
    "phone",
    re.compile(
        rf"{_NUMBER_START}{_NO_PAYLOAD}(?:"
        # A number such as 0.12345678, a list such as 0 1 0 1, and a date are none.
        rf"(?:\+\d{{1,3}}[ .-]?|\(?(?!{_DATE})0(?!\.\d|[ -]\d(?!\d)))"
        r"\d?(?:[ ().-]{0,2}\d){6,12}"
        # Without a prefix in North America's form only: https://nationalnanpa.com/about_us
        r"|(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])\d{3}[.-]\d{4}"
        r")(?!\w)"
    ),
    in_pieces=True,
    folds=True,
)

# Prefixes as the issuers document them:
# https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/
# https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github
# https://api.slack.com/concepts/token-types
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html (unique ids)
# https://docs.stripe.com/keys and https://docs.stripe.com/webhooks/signature
# https://docs.gitlab.com/security/tokens/#token-prefixes
# https://supabase.com/docs/guides/api/api-keys and https://github.com/FiloSottile/age
# and otherwise as https://github.com/gitleaks/gitleaks/blob/master/config/gitleaks.toml has them,
# or as newly made keys look.
API_KEY = Detector(
    "api_key",
    re.compile(
        rf"{_WORD_START}(?:"
        rf"{_NO_PAYLOAD}(?:sk-[\w-]{{16,}}|hf_[A-Za-z0-9]{{30,}}|r8_\w{{30,}}"
        # Names in programs begin so, too: pk_of_the_customers.
        r"|(?:sk_|[pr]k[-_])(?=[\w-]{0,60}?[A-Z0-9])[\w-]{16,}"
        r"|(?:fw|ntn|e2b|pat)_[A-Za-z0-9]{20,}|re_[A-Za-z0-9_]{28,}|csk-[a-z0-9]{40,}"
        r"|(?:key|fc)-[0-9a-f]{32}(?![0-9a-f])|SK[0-9a-f]{32}(?![0-9a-f])"  # Mailgun, Twilio
        r"|pat[A-Za-z0-9]{14}\.[0-9a-f]{64}|hv[sbr]\.[\w-]{20,}|dp\.[a-z]{2,5}\.\w{40,}"
        r"|[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}"  # Discord
        r"|[0-9]{8,10}:AA[\w-]{32,}(?![\w-])"  # Telegram
        r")"
        r"|sk-(?:proj|svcacct|admin|ant|or|lf)-[\w-]{16,}"  # OpenAI, Anthropic, OpenRouter
        r"|[srp]k_(?:live|test|prod)_\w{10,}|whsec_[\w+/=]{16,}"  # Stripe
        r"|gh[pousr]_\w{30,}|github_pat_\w{30,}"
        r"|gl(?:pat|oas|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct)-[\w.-]{16,}"
        r"|xox[a-z](?:\.xox[a-z])?-[\w-]{10,}|xapp-[\w-]{10,}|xwfp-[\w-]{10,}"  # Slack
        r"|hooks\.slack\.com/[\w/]{20,}"
        r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Z0-9])"
        r"|AIza[\w-]{30,}|AQ\.[\w-]{30,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"  # Google
        r"|gsk_\w{30,}|xai-\w{30,}|pplx-\w{30,}|tvly-[\w-]{20,}"
        r"|lsv2_(?:pt|sk)_\w{30,}"  # LangSmith
        r"|npm_\w{30,}|pypi-[\w-]{30,}|dop_v1_\w{30,}|dapi[0-9a-f]{32}|sbp_\w{30,}"
        r"|SG\.[\w-]{16,}\.[\w-]{16,}"  # SendGrid
        r"|nvapi-[\w-]{30,}|pcsk_\w{30,}|tgp_v1_[\w-]{30,}|jina_\w{30,}|sb_secret_[\w-]{20,}"
        r"|secret_[A-Za-z0-9]{43}(?![A-Za-z0-9])|lin_api_\w{30,}|vercel_[a-z]+_\w{20,}"
        r"|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|sq0[a-z]{3}-[\w-]{20,}"  # Shopify, Square
        r"|glsa_\w{30,}|glc_[\w+/=]{32,}|NR(?:AK|II|JS)-[\w-]{20,}"  # Grafana, New Relic
        r"|AT[AC]TT3[\w=-]{50,}|PMAK-[\w-]{50,}|fig[du]_[\w-]{30,}"  # Atlassian, Postman, Figma
        r"|sntry[su]_[\w+/=]{40,}|rubygems_[0-9a-f]{40,}|dckr_[a-z]{3}_[\w-]{20,}"
        r"|AGE-SECRET-KEY-1[0-9A-Z]{58}|(?<=AccountKey=)[A-Za-z0-9+/]{80,}=*"  # age, Azure
        r")"
    ),
    in_pieces=True,
)
"""Keys and tokens that their prefix tells from other text."""

JWT = Detector(
    "jwt",
    re.compile(
        r"(?:(?<![\w-])|(?<=\\[nrt]))(?:(?!eyJ)[\w-])*+eyJ[\w-]{10,}+\."
        r"(?:[\w-]*+\.[\w-]++\.[\w-]++\.[\w-]++|[\w-]{10,}+(?:\.[\w-]++)?)"
    ),
    in_pieces=True,
)
"""JSON Web Tokens: encrypted (RFC 7516, section 3.1), or signed or not (RFC 7515, section 3.1)."""

_PEM_LABEL = r"(?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"

PRIVATE_KEY = Detector(
    "private_key",
    re.compile(
        rf"-----BEGIN {_PEM_LABEL}"
        # To the end, or, of one that was cut off, as far as there are lines of base64.
        rf"(?:(?:[^-]|-(?!----))*+-----END {_PEM_LABEL}|(?:\\[nr]|\s|[A-Za-z0-9+/]{{16,}}+=*+)*+)"
    ),
)
"""Private keys in PEM (RFC 7468, sections 10 and 11; OpenPGP's: RFC 9580, section 6.2)."""

DETECTORS = (PRIVATE_KEY, EMAIL, JWT, API_KEY, CARD, PHONE)
"""What is looked for by default, in this order."""
