"""The service: prices over HTTP, for people's programs and for the course's own chat client.

``create_app`` makes a FastAPI app of any pricer; ``python -m shared serve`` runs it. How that is
done, and who asks it, is in ``shared.operating``.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "Limits": "serving.limits",
    "MicroBatcher": "serving.batching",
    "create_app": "serving.app",
}
__all__ = list(_FROM)

# FastAPI and uvicorn are imported when the service is.
__getattr__ = lazy(__name__, _FROM)
