"""Keys: where they come from, and how they are kept out of everything that is written."""

from __future__ import annotations

import os
import re

_LOOKS_LIKE_A_KEY = re.compile(
    r"\b(?:sk|pk|gsk|hf|xai|AIza)[-_][A-Za-z0-9_-]{8,}|\bAIza[A-Za-z0-9_-]{20,}"
    r"|(?i:\b(?:bearer|x-api-key|authorization)\b['\"]?\s*[:=]?\s*['\"]?)[A-Za-z0-9_.-]{8,}"
)
_known: set[str] = set()
NO_KEYS = ("stand-in", "none")
"""What an SDK is given where a server asks for no key: words, not secrets."""


class Secret:
    """A key that does not show itself: printed, formatted or pickled, it is stars."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        if value not in NO_KEYS:
            _known.add(value)

    def reveal(self) -> str:
        """Return the key itself; only an SDK's constructor has a use for it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> tuple:
        return Secret, ("***",)


def get_secret(name: str) -> Secret | None:
    """Return the key of this name, or None: from the environment, else from Colab's key store."""
    value = os.environ.get(name, "").strip() or _from_colab(name)
    return Secret(value) if value else None


def redact(text: str) -> str:
    """Return a text without any key: the ones read in this process, and all that look like one."""
    return _LOOKS_LIKE_A_KEY.sub("***", without_keys(text))


def without_keys(text: str) -> str:
    """Return a text without the keys read in this process; what a model wrote may look like one."""
    for value in _known:
        if len(value) >= 6:
            text = text.replace(value, "***")
    return text


def _from_colab(name: str) -> str:
    try:
        from google.colab import userdata
    except ImportError:
        return ""
    try:
        return (userdata.get(name) or "").strip()
    except Exception:  # not there, or the notebook has no access to it
        return ""
