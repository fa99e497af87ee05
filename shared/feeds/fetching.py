"""Fetching what strangers serve: bounded in time, size, redirects and addresses, and cached.

A feed's address may lead anywhere, so each hop is vetted: http(s) only, public addresses only, and
the address that was vetted is the one that is connected to (no second look-up in between). Proxies
of the environment are not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from shared.data.storage import write_json

AGENT = "price-course-deals/1"
"""By which name robots.txt may speak to us."""

PORTS = (80, 443, 8080, 8443)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MOVED = (301, 302, 303, 307, 308)
_VALIDATORS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}


class FetchError(RuntimeError):
    """Nothing was fetched; the message says what, and why. ``status``: of HTTP, 0 if none came."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Fetched:
    """A document. ``url``: where it was in the end; ``unchanged``: it came from the cache."""

    url: str
    body: bytes
    unchanged: bool = False


class Fetcher:
    """Fetches documents over http(s).

    ``cache``: a folder that keeps documents with their ETag or date, so that an unchanged one is
    not sent again. ``allow``: origins ("http://127.0.0.1:8000") that may be private addresses, and
    have any port. ``seconds`` are for a whole document, redirects aside; ``largest`` is its bytes,
    unpacked.
    """

    def __init__(
        self, cache: Path | None = None, *, allow: tuple[str, ...] = (), seconds: float = 10.0,
        largest: int = 3_000_000, redirects: int = 4,
    ) -> None:  # fmt: skip
        self.cache, self.seconds, self.largest = cache and Path(cache), seconds, largest
        self.redirects, self._allow = redirects, {origin(url) for url in allow}
        self._robots: dict[str, RobotFileParser] = {}
        self._asking: dict[str, threading.Lock] = {}

    def get(self, url: str) -> Fetched:
        """Return the document at an address; raise FetchError if there is none for us."""
        return self._follow(url, robots=True)

    def _follow(self, url: str, robots: bool) -> Fetched:
        began_safe = url.lower().startswith("https:")
        for _ in range(self.redirects + 1):
            url = self._vetted(url)
            if began_safe and not url.startswith("https:"):
                raise FetchError(f"{url}: a redirect from https to http is not followed")
            if robots and not self._may(url):
                raise FetchError(f"{url}: robots.txt asks us to stay away")
            validators, kept = self._kept(url)
            status, headers, body = self._once(url, validators)
            if status == 304 and validators:
                return Fetched(url, kept, unchanged=True)
            if status == 200:
                self._keep(url, headers, body)
                return Fetched(url, body)
            if status not in _MOVED:
                raise FetchError(f"{url}: HTTP {status}", status)
            url = urljoin(url, headers.get("location") or "")
        raise FetchError(f"{url}: more than {self.redirects} redirects")

    def _vetted(self, url: str) -> str:
        """Return an address as it will be asked for; raise FetchError for one that will not."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError as error:
            raise FetchError(f"{url[:200]!r} is no address ({error})") from None
        scheme = parts.scheme.lower()
        if scheme not in ("http", "https") or not host:
            raise FetchError(f"{url[:200]!r}: only http and https addresses are fetched")
        if parts.username is not None or parts.password is not None:
            raise FetchError(f"{scheme}://{host}: addresses with a user or password are not used")
        host = f"[{host}]" if ":" in host else host
        place = f"{scheme}://{host}" + (f":{port}" if port is not None else "")
        if port not in (None, *PORTS) and origin(place) not in self._allow:
            raise FetchError(f"{place}: port {port} is not one of {', '.join(map(str, PORTS))}")
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
        return place + path + (f"?{query}" if query else "")

    def _may(self, url: str) -> bool:
        """Ask robots.txt (RFC 9309): where there is none, all is allowed; unreachable, nothing."""
        place = origin(url)
        with self._asking.setdefault(place, threading.Lock()):
            if place not in self._robots:
                self._robots[place] = self._rules(place)
        return self._robots[place].can_fetch(AGENT, url)

    def _rules(self, place: str) -> RobotFileParser:
        rules = RobotFileParser()
        try:
            text = self._follow(f"{place}/robots.txt", robots=False).body[:500_000]
            rules.parse(text.decode("utf-8", "replace").splitlines())
        except FetchError as error:
            if not 400 <= error.status < 500:
                raise FetchError(f"robots.txt cannot be read, so nothing is: {error}") from None
            rules.parse([])
        return rules

    def _once(self, url: str, validators: dict[str, str]) -> tuple[int, Any, bytes]:
        """Make one request; the watch ends it after its seconds, whatever it is waiting for."""
        try:
            connection = _Connection(url, self.seconds, origin(url) in self._allow)
        except http.client.InvalidURL as error:
            raise FetchError(f"{url[:200]!r} is no address ({error})") from None
        late = threading.Event()
        watch = threading.Timer(self.seconds, lambda: (late.set(), connection.hang_up()))
        watch.daemon = True
        watch.start()
        try:
            parts = urlsplit(url)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            headers = {"User-Agent": AGENT, "Accept-Encoding": "gzip", "Accept": "*/*"}
            connection.request("GET", path, headers=headers | validators)
            response = connection.getresponse()
            body = self._read(response) if response.status == 200 else b""
        except (OSError, http.client.HTTPException, ValueError, zlib.error) as error:
            if late.is_set():
                raise FetchError(f"{url}: took more than {self.seconds:g} seconds") from None
            raise FetchError(f"{url}: {type(error).__name__}: {error}"[:300]) from None
        finally:
            watch.cancel()
            connection.close()
        if late.is_set():
            raise FetchError(f"{url}: took more than {self.seconds:g} seconds")
        return response.status, response.headers, body

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """Read and unpack a body a piece at a time, so that none grows beyond the limit."""
        packed = (response.headers.get("content-encoding") or "identity").strip().lower()
        if packed not in ("identity", "gzip", "x-gzip"):
            raise ValueError(f"content encoding {packed[:40]!r} was not asked for")
        unpacking = zlib.decompressobj(31) if packed != "identity" else None
        body, received = bytearray(), 0
        while piece := response.read1(65_536):
            received += len(piece)
            room = self.largest - len(body) + 1
            body += unpacking.decompress(piece, room) if unpacking else piece
            if len(body) > self.largest or received > self.largest:
                raise ValueError(f"larger than {self.largest:,} bytes")
        if response.length or (unpacking and not unpacking.eof):
            raise ValueError("ended before it was whole")
        return bytes(body)

    def _file(self, url: str) -> Path | None:
        return self.cache and self.cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    def _kept(self, url: str) -> tuple[dict[str, str], bytes]:
        """Return the validators and the body that are kept; a damaged file counts as none."""
        try:
            kept = json.loads(self._file(url).read_text(encoding="utf-8")) if self.cache else {}
            return dict(kept["validators"]), b64decode(kept["body"], validate=True)
        except (OSError, ValueError, KeyError, TypeError):
            return {}, b""

    def _keep(self, url: str, headers: Any, body: bytes) -> None:
        said = {ours: (headers.get(theirs) or "").strip() for theirs, ours in _VALIDATORS.items()}
        said = {n: v for n, v in said.items() if v and len(v) < 500 and v.isascii()}
        if self.cache and said and all(map(str.isprintable, said.values())):
            kept = {"url": url, "validators": said, "body": b64encode(body).decode()}
            write_json(kept, self._file(url))


class _Connection(http.client.HTTPConnection):
    """A connection to a vetted address, with TLS for https; it can be ended from outside."""

    def __init__(self, url: str, seconds: float, private: bool) -> None:
        parts = urlsplit(url)
        self._safe = parts.scheme == "https"
        super().__init__(
            parts.hostname or "", parts.port or (443 if self._safe else 80), timeout=seconds
        )
        self._private, self._over = private, False
        self._live: socket.socket | None = None  # ``sock`` is forgotten while an answer is read

    def connect(self) -> None:
        """Connect to the first public address that answers; OSError if there is none."""
        error: OSError = OSError("the name leads nowhere")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM
        ):
            if not self._private and not is_public(address[0]):
                error = PermissionError("it is an address of a private network")
                continue
            self.sock = self._live = socket.socket(family, kind, protocol)
            try:
                self.sock.settimeout(self.timeout)
                self.sock.connect(address)
                if self._safe:
                    context = ssl.create_default_context()
                    self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
                    self._live = self.sock
                if self._over:
                    raise TimeoutError
                return
            except OSError as failed:
                error = failed
                self.sock.close()
        raise error

    def hang_up(self) -> None:
        """End whatever is waiting for the other side."""
        self._over = True
        if self._live is not None:
            with contextlib.suppress(OSError):  # it ended by itself
                self._live.shutdown(socket.SHUT_RDWR)


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the open internet, and not in disguise a private one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour or ip.teredo or ip in _NAT64:
            return False
    return ip.is_global and not ip.is_multicast


def origin(url: str) -> str:
    """Return scheme, host and port of an address, the port always named."""
    parts = urlsplit(url.lower())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
