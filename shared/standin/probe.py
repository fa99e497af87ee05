"""Is the server at an address the stand-in? Then its answers must not pass for a real model's."""

from __future__ import annotations

import urllib.error
import urllib.request
from urllib.parse import urlsplit

SIGNATURE = "course-stand-in"
"""What the stand-in calls itself in the ``Server`` header of every answer."""

PATIENCE = 2.0  # seconds


def is_local(url: str | None) -> bool:
    """Tell whether a server is on this machine."""
    return urlsplit(url or "").hostname in ("localhost", "127.0.0.1", "::1")


def is_stand_in(url: str) -> bool:
    """Ask the server at ``url`` who it is, if it is on this machine; false if it does not say."""
    if not is_local(url):
        return False
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(root, timeout=PATIENCE) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as error:
        headers = error.headers
    except (OSError, ValueError):
        return False
    return SIGNATURE in (headers.get("Server") or "")
