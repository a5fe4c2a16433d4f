"""Text that is safe to show in a terminal, a log or a line to paste.

Messages hold text that anybody may have written. A terminal acts on control sequences in it: they
set the title, write the clipboard (OSC 52) or move the cursor over what stands there already
(ECMA-48; https://invisible-island.net/xterm/ctlseqs/ctlseqs.html). Marks for the writing direction
make a text look like another one (https://trojansource.codes).
"""

from __future__ import annotations

import re

# Control characters but for tab and newline, what reorders text, and halves of surrogate pairs.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What may steer a terminal."""


def one_line(value: object) -> str:
    """Return what a value says as one printable line, for logs: a line break would forge one.

    See https://cwe.mitre.org/data/definitions/117.html.
    """
    return printable(str(value)).replace("\n", "\\n").replace("\t", "\\t")


def printable(text: str) -> str:
    """Return the text, with what could steer a terminal written out as an escape such as ``x1b``.

    Tabs and line breaks stay.
    """
    return UNSAFE.sub(
        lambda match: match[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n")
    )
