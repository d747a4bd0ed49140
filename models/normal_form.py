"""The form of a caption in which only its words count."""

from __future__ import annotations

from unicodedata import category


def normal_form(caption: str) -> str:
    """Return a caption in lower case, with spaces in place of punctuation, and one space between words.

    It is how m-LTM (arXiv 2405.10084) prepares captions for its text encoder. Its code replaces some marks; here it is
    all punctuation and symbols of Unicode, so that `high-pitched` and `high pitched` are one, too. Empty where there is
    no word.
    """
    return " ".join("".join(" " if category(sign)[0] in "PS" else sign for sign in caption.lower()).split())
