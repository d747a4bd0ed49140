"""Two plain forms of a caption: one that is compared, and one that a text encoder reads."""

from __future__ import annotations

import re
from unicodedata import category

READ_MARKS = re.compile(r'[(),.!?;:|*"]')  # those that m-LTM's code replaces: apostrophes and hyphens stay


def normal_form(caption: str) -> str:
    """Return a caption in the form in which only its words count, to tell whether two captions are one.

    It is in lower case, with spaces in place of all punctuation and symbols of Unicode, and one space between words:
    `high-pitched` and `high pitched` are one. Empty where there is no word.
    """
    return " ".join("".join(" " if category(sign)[0] in "PS" else sign for sign in caption.lower()).split())


def reading_form(caption: str) -> str:
    """Return a caption as m-LTM (arXiv 2405.10084) prepares it for its text encoder.

    It is in lower case, with spaces in place of the marks that its code replaces, and one space between words. Words
    stay whole, as text encoders know them: `don't` and `high-pitched` keep their marks.
    """
    return " ".join(READ_MARKS.sub(" ", caption.lower()).split())
