from __future__ import annotations

import base64
import json
import random
import re
import subprocess
import sys

import pytest

from langswarm_session import RedactingMiddleware
from langswarm_session.middleware import detectors
from langswarm_session.middleware.detectors import (
    API_KEY,
    CARD,
    DETECTORS,
    EMAIL,
    JWT,
    PHONE,
    PRIVATE_KEY,
    Detector,
    passes_luhn,
)

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
X20, X36, X40, X100 = LETTERS[:20], LETTERS[:36], LETTERS[:40], LETTERS + LETTERS[:38]


def redacted(text: str) -> str:
    return RedactingMiddleware().redacted_text(text)


def found(detector: Detector, text: str) -> list[str]:
    return [text[start:end] for start, end in detector.spans(text)]


# Made up, in the issuers' formats.
TOKENS = [
    f"sk-{X20}T3BlbkFJ{X20}",
    f"sk-proj-{X100}-{X20}_T3BlbkFJ{X40}",
    f"sk-svcacct-{X100}",
    f"sk-admin-{X100}",
    f"sk-ant-api03-{X100}-AA",
    f"sk-ant-oat01-{X100}",
    f"sk-or-v1-{X40}",
    *(f"gh{kind}_{X36}" for kind in "pousr"),
    f"github_pat_{LETTERS[:22]}_{X40}{X20}",
    f"glpat-{X20}",
    f"xoxb-123456789012-1234567890123-{X20}",
    f"xoxp-123456789012-123456789012-{X36}",
    f"xoxe.xoxp-1-{X40}",
    f"xapp-1-A0123456789-1234567890123-{X40}",
    f"https://hooks.slack.com/services/T0123456789/B0123456789/{X20}",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    f"AIza{LETTERS[:35]}",
    f"ya29.{X40}",
    f"GOCSPX-{X20}abcdefgh",
    f"sk_live_{X20}",
    f"rk_test_{X20}",
    f"whsec_{X36}",
    f"hf_{LETTERS[:34]}",
    f"gsk_{X40}",
    f"xai-{X40}",
    f"npm_{X36}",
    f"pypi-{X40}",
    "dapi" + "0123456789abcdef" * 2,
    f"SG.{X20}.{X40}",
    f"lsv2_pt_{X40}",
    f"nvapi-{X40}",
    f"pcsk_{X40}",
    f"tgp_v1_{X40}",
    f"jina_{X40}",
    f"sb_secret_{X36}",
    f"csk-{LETTERS[26:36].lower() * 4}abcdefgh",
    f"fw_{X20}",
    f"e2b_{X40}",
    f"ntn_{X40}",
    f"secret_{LETTERS[:43]}",
    f"lin_api_{X40}",
    "shpat_" + "0123456789abcdef" * 2,
    f"sq0atp-{X20}ab",
    f"dp.pt.{X40}abc",
    f"hvs.{X100}",
    f"glsa_{LETTERS[:32]}_0123abcd",
    f"NRAK-{LETTERS[26:52]}0",
    f"ATATT3xFfGF0{X100}",
    f"PMAK-{LETTERS[:24]}-{LETTERS[:34]}",
    f"figd_{X40}",
    f"sntrys_{X40}{X20}",
    "rubygems_" + "0123456789abcdef" * 3,
    f"dckr_pat_{LETTERS[:27]}",
    "SK" + "0123456789abcdef" * 2,
    "key-" + "0123456789abcdef" * 2,
    f"123456789:AA{LETTERS[:33]}",
    f"MTA{LETTERS[:23]}.GabcDE.{LETTERS[:38]}",
    f"pat{LETTERS[:14]}." + "0123456789abcdef" * 4,
    "AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" + LETTERS[26:52],
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize(
    "place",
    [
        "{}",
        "key={}",
        "KEY_{} ",
        "a-{},b",
        '{{"k": "{}"}}',
        "Bearer {}\n",
        r'{{"env": "A=1\n{}"}}',
        "(see {}).",
    ],
)
def test_tokens_are_found_wherever_they_stand(token, place):
    text = redacted(place.format(token))
    assert token not in text
    assert token[-12:] not in text
    assert "[api_key]" in text


@pytest.mark.parametrize(
    "token",
    [
        # RFC 7519, section 3.1; RFC 7516, appendix A.1; without a signature; with an empty key
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAi.dBjftJeZ4CVP-mB92K",
        "eyJhbGciOiJSU0EtT0FFUCJ9.OKOawDo13gRp2ojaHV.48V1_ALb6US04U3b.5eym8TW_c8SuK0l.XFBoMYUZodetZ",
        "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAi",
        "eyJhbGciOiJkaXIiLCJlbmMi..48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIz.XFBoMYUZodetZdvTiFvSkQ",
    ],
)
def test_web_tokens_are_found(token):
    assert redacted(f"It is {token}.") == "It is [jwt]."
    assert redacted(f"Authorization: Bearer {token}") == "Authorization: Bearer [jwt]"
    assert "eyJ" not in redacted(f"x-{token}")


PEM = "-----BEGIN{0} PRIVATE KEY-----\n{1}\n-----END{0} PRIVATE KEY-----"


@pytest.mark.parametrize("kind", ["", " RSA", " EC", " OPENSSH", " ENCRYPTED"])
def test_private_keys_are_found_whole(kind):
    body = "\n".join(f"{X40}{n}==" for n in range(20))
    assert redacted(f"a\n{PEM.format(kind, body)}\nb") == "a\n[private_key]\nb"
    in_json = PEM.format(kind, body).replace("\n", "\\n")
    assert redacted(f'"{in_json}"') == '"[private_key]"'
    headers = f"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{body}"
    assert redacted(PEM.format(kind, headers)) == "[private_key]"


def test_a_private_key_that_was_cut_off_is_found_and_what_follows_it_is_kept():
    start = f"-----BEGIN PRIVATE KEY-----\n{X40}\n{X40}"
    assert redacted(start) == "[private_key]"
    said = "-----BEGIN PRIVATE KEY----- is how a key begins. -----BEGIN CERTIFICATE----- is none."
    assert redacted(said).endswith("is how a key begins. -----BEGIN CERTIFICATE----- is none.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o'brien@example.org", "[email]"),
        ("'ada@example.org'", "'[email]'"),
        ("ada@example.org_x", "[email]_x"),
        ("https://e.org/?m=ada%40example.org&x", "https://e.org/?m=[email]&x"),
        ("ada@bücher.example", "[email]"),
        ("ada@例え.テスト", "[email]"),
        ("ada@example.xn--p1ai", "[email]"),
        (r"a\nada@example.org\n", r"a\n[email]\n"),
        ("a@b.example,c@d.example;e@f.example", "[email],[email];[email]"),
        ("a@b@c.example", "a@[email]"),
        ("@property", "@property"),
        ("3@1.50", "3@1.50"),
    ],
)
def test_addresses(text, expected):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 4111 1111 1111 1111", "12 [card]"),
        ("4111 1111 1111 1111 12", "[card] 12"),
        ("4111-1111-1111-1111", "[card]"),
        ("4111 1111 1111 1111 5500 0000 0000 0004", "[card] [card]"),
        ("4111 1111 1111 1111 2nd", "[card] 2nd"),
        ("378282246310005.", "[card]."),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("1764500000000005", "1764500000000005"),
        ("call_4111111111111111", "call_4111111111111111"),
    ],
)
def test_cards_are_found_among_other_numbers(text, expected):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111\u00a01111\u202f1111\u20091111", "[card]"),
        ("4111\u20111111\u20131111\u22121111", "[card]"),
        ("4111  1111 - 1111  1111", "[card]"),
        ("4111.1111.1111.1111", "[card]"),
        ("\uff14" + "\uff11" * 15, "[card]"),
        ("\u0664" + "\u0661" * 15, "[card]"),
        ("No.4111111111111111", "No.[card]"),
        (r"a\n4111111111111111\t+46701234567", r"a\n[card]\t[phone]"),
        ("+46\u00a070\u00a0123\u00a045\u00a067", "[phone]"),
        ("\uff0b46\u201070\u2010123\u201045\u201067", "[phone]"),
        ("Tel.0701234567", "Tel.[phone]"),
        ("(555) 123-4567, 555-123-4567, 555.123.4567", "[phone], [phone], [phone]"),
        ("ada\uff20example\uff0eorg \u00fc", "[email] \u00fc"),
    ],
)
def test_numbers_and_addresses_are_found_however_they_are_typed(text, expected):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a probability of 0.12345678, -0.12345678 and .0234567",
        "0.4111111111111111",
        "on 01.02.2026 and 09-11-2001, (03.04.2026)",
        "01.02.2026 - 03.04.2026",
        "12:00:00.000123",
        "[0 1 0 1 0 1 0 1]",
        "192.168.100.200 10.0.0.1",
        "pk_of_the_customer_table",
        "def sk_something_with_a_name():",
        "rk-model-checkpoint-latest",
        "patients_are_waiting_in_the_hall",
    ],
)
def test_other_numbers_and_names_are_left_alone(text):
    assert redacted(text) == text


def test_the_check_digit():
    assert passes_luhn("79927398713")
    assert passes_luhn("7992 7398-713")
    assert not passes_luhn("79927398710")


def test_payloads_are_left_alone():
    """Reasoning that only its provider can read breaks with one letter."""
    generator = random.Random(7)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for _ in range(300):
            payload = encode(generator.randbytes(6_000)).decode()
            assert redacted(payload) == payload
    assert redacted(f"{X40}-sk-{X40}") == f"{X40}-sk-{X40}"


# What makes a pattern slow that begins again within what it has read.
RUNS = [
    "a", "a.", "a@", "@", "a'", "-", "a-", "eyJaaaaaaaaaa-", "eyJaaaaaaaaaa.", "eyJaaaaaaaaaa",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "1 ", "1", "12-", "+1", "(0", "0 ", "sk-", "xox.",
    "\\n", "a%40", "4111111111111112 ", "SG.aaaaaaaaaaaaaaaa-", "ghp_", "a@b.", "@xn--.", "\u0661",
    "0123456789abcdef", "a@b.c1.", "\u00a0", "4\u00a0", "1234.", "pk_", "SK0", "12345678:AA", "MTA.",
]  # fmt: skip

_SEARCH = """
import json, sys
from langswarm_session.middleware.detectors import DETECTORS
for run in json.load(sys.stdin):
    for text in (run * (150_000 // len(run)) + "a", run * 9_000 + "@" + run * 9_000 + "1"):
        for detector in DETECTORS:
            list(detector.spans(text))
"""


def test_no_text_takes_more_than_linear_time():
    """Seconds for all of these; the quadratic patterns of before took minutes for each."""
    command = [sys.executable, "-c", _SEARCH]
    subprocess.run(command, input=json.dumps(RUNS), text=True, check=True, timeout=60)


def test_a_long_text_is_searched_in_pieces(monkeypatch):
    monkeypatch.setattr(detectors, "_PIECE", 10)
    text = "0123456789, a@b.example, 0123456789 4111 1111 1111 1111, sk-ant-aaaaaaaaaaaaaaaaaaaa"
    for detector in (EMAIL, CARD, API_KEY, PHONE, JWT):
        assert detector.in_pieces
        pieces = list(detector.matches(text))
        assert [match.span() for match in pieces] == [
            match.span() for match in detector.pattern.finditer(text)
        ]
    own = Detector("list", re.compile(r"a@b.example, 0"))
    assert found(own, text) == ["a@b.example, 0"]


def test_every_pattern_is_one_of_the_default_ones():
    assert set(DETECTORS) == {EMAIL, CARD, API_KEY, PHONE, JWT, PRIVATE_KEY}
