"""Only words count where captions are compared; text encoders read what the sources gave them."""

import pytest

from models.normal_form import normal_form, reading_form


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog barks, twice.", "a dog barks twice"),
        ("  a dog\tbarks twice\n", "a dog barks twice"),
        ("A high-pitched (loud) \u201cbeep\u201d!", "a high pitched loud beep"),
        ("Ein B\u00e4r br\u00fcllt; 2 V\u00f6gel", "ein b\u00e4r br\u00fcllt 2 v\u00f6gel"),
        ("\u0915\u0941\u0924\u094d\u0924\u093e\u0964", "\u0915\u0941\u0924\u094d\u0924\u093e"),  # vowel signs stay
        ("...", ""),
        ("a ~ b_c", "a b c"),
    ],
)
def test_only_words_count(caption: str, expected: str) -> None:
    assert normal_form(caption) == expected
    assert normal_form(expected) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog doesn't bark, twice.", "a dog doesn't bark twice"),
        ('A high-pitched (loud) "beep" | Hum; end*', "a high-pitched loud beep hum end"),
        ("  A\tdog \n", "a dog"),
    ],
)
def test_words_are_read_whole(caption: str, expected: str) -> None:
    assert reading_form(caption) == expected
    assert reading_form(expected) == expected
