"""The browser that tests of pages drive, where there is one."""

from __future__ import annotations

import shutil

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
needs_browser = pytest.mark.skipif(not BROWSER, reason="no chromium or chrome is installed here")
