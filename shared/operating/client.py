"""A small client: asks again where that may help, and never lets one product be priced as another.

Pricing changes nothing on the server, so a request may be sent twice: after 429 and 503 as late as
the service says, after a lost connection a little later each time. It needs nothing but Python.
"""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from shared.data.schema import Product
from shared.evaluation import Estimates
from shared.frontier.secrets import redact
from shared.serving.limits import AGAIN, retry_after
from shared.standin import is_local

LONGEST_WAIT = 30.0
"""Seconds between two attempts, at most."""
MOST = 64
"""Products in a request, at most; longer lists are sent in several."""


class ServiceError(RuntimeError):
    """The service did not price; ``status`` is its HTTP status, 0 if there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class PriceClient:
    """Asks a service for prices. ``retries``: attempts after the first; ``timeout``: of each, in
    seconds.

    Results are the dicts of the service, in the order of the records: ``price``, ``low``, ``high``
    in dollars (None where there is none), ``error``. ``model`` is the version that answered last.
    """

    def __init__(
        self, url: str, key: str | None = None, *, retries: int = 6, timeout: float = 60.0
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"{url!r} is no address of a service: http://127.0.0.1:8000, say")
        self.url, self.retries, self.timeout = url.rstrip("/"), retries, timeout
        self._key, self._opener = (key or "").strip(), opener(url)  # a file's lines have ends
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError("the key holds what no header can carry: take it from the file again")
        self.model, self.attempts = "", 0

    def __repr__(self) -> str:
        return f"PriceClient({self.url!r})"

    def price(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the result of each record. Raises ServiceError when there is no answer."""
        found: list[dict[str, Any]] = []
        for at in range(0, len(records), MOST):
            part = list(records[at : at + MOST])
            answer = self._asked({"products": part})
            results = answer.get("results") if isinstance(answer, dict) else None
            if not isinstance(results, list) or len(results) != len(part):
                raise ServiceError(f"{self.url} answered something that is no list of prices", 200)
            self.model = str(answer.get("model", ""))
            found += results
        return found

    def _asked(self, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        headers = {"content-type": "application/json", "x-request-id": uuid.uuid4().hex}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        for attempt in range(self.retries + 1):
            self.attempts += 1
            wait = min(0.1 * 2**attempt, 5.0) * random.uniform(0.5, 1.0)
            request = urllib.request.Request(f"{self.url}/v1/price", data, headers)
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                said = _said(error)
                problem = ServiceError(_message(error, said), error.code)
                # 500 and not a word of the service's: whoever stands before it lost it meanwhile.
                if error.code not in AGAIN and (said or error.code != 500):
                    raise problem from None
                wait = retry_after(error.headers, wait)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = ServiceError(f"no answer from {self.url} ({_why(error)})")
            if attempt < self.retries:
                time.sleep(min(wait, LONGEST_WAIT))
        raise problem


class ServedPricer:
    """A service as a pricer, so that ``evaluate`` and the leaderboard can judge what is served."""

    def __init__(self, client: PriceClient, name: str = "") -> None:
        self.client, self.name = client, name or f"served at {client.url}"
        self.label, self.settings = "", {"url": client.url}

    def price(self, products: Sequence[Product]) -> Estimates:
        """Estimate the price of each product in dollars, with its interval where there is one."""
        start = time.perf_counter()
        found = self.client.price([record_of(product) for product in products])
        seconds = (time.perf_counter() - start) / max(len(products), 1)
        columns = {
            name: np.array([one[name] if one[name] is not None else np.nan for one in found], float)
            for name in ("price", "low", "high")
        }
        errors = [one["error"] for one in found]
        return Estimates(error=errors, seconds=np.full(len(found), seconds), **columns)


def record_of(product: Product) -> dict[str, Any]:
    """Return a product as a record that cleaning turns into the same product again.

    Of some hundred texts one loses a line: a heading with nothing below it any more.
    """
    title, _, rest = product.text.partition("\n")
    return {
        "title": title or product.title or "?", "description": [rest] if rest else [],
        "main_category": product.category or None, "parent_asin": product.id[:200],
    }  # fmt: skip


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nobody elsewhere: urllib would take the key along."""


def opener(url: str) -> urllib.request.OpenerDirector:
    """Return what opens addresses; for this machine it goes round a proxy of the environment."""
    handlers = [urllib.request.ProxyHandler({})] if is_local(url) else []
    return urllib.request.build_opener(_Stay, *handlers)


def _said(error: urllib.error.HTTPError) -> str | None:
    """Return the service's own words; None if it was not the service that answered."""
    try:
        return str(json.loads(error.read(100_000))["error"]["message"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return None


def _message(error: urllib.error.HTTPError, said: str | None) -> str:
    return redact(f"HTTP {error.code}: {said or error.reason}")[:500]


def _why(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}")[:200]
