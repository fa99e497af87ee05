"""The page in a browser: price a product, compare models, label, watch drift, find deals.

Each tab is a module of its own over plain functions; ``page`` puts them together. One process
holds one set of models, however many tabs are open on it.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "Knowledge": "app.knowledge",
    "Worker": "app.worker",
    "app_page": "app.page",
    "serve_page": "app.page",
}
__all__ = list(_FROM)

__getattr__ = lazy(__name__, _FROM)
