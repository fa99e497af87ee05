"""How long the service waits for a request that has begun to arrive."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.auto import AutoHTTPProtocol


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's own protocol, but with an end to its patience: headers have to arrive in time.

    Without it a client that sends a letter a minute keeps its connection for ever (slow loris).
    """

    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the headers of the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on; between requests, begin to wait for the next one's headers."""
        super().data_received(data)
        asked = self.cycle is not None and not self.cycle.response_complete
        if asked and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        elif not asked and self._alarm is None:
            self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        """Wait for nothing more."""
        if self._alarm is not None:
            self._alarm.cancel()
        super().connection_lost(error)

    def _wait(self) -> None:
        self._alarm = self.loop.call_later(self.timeout_keep_alive, self._hang_up)

    def _hang_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
