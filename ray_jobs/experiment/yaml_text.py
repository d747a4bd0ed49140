"""Read YAML as experiment files and overrides have it."""

from __future__ import annotations

from typing import Any

import yaml

NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


def load_yaml(text: str) -> Any:
    """Return what a YAML text says, without the numbers to base 60 of YAML 1.1: 8:00 is text, as in YAML 1.2, not 480.

    Raises:
        yaml.YAMLError: if the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, KeyError, AttributeError, RecursionError) as error:  # a date such as 2024-02-30, [[[[...
        raise yaml.YAMLError(f"holds what cannot be read ({type(error).__name__}: {error})") from error


class _Loader(yaml.SafeLoader):
    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        return self.DEFAULT_SCALAR_TAG if tag in NUMBERS and ":" in value else tag
