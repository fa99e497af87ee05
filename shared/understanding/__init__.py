"""Understanding: models that say of which category a product is, made small and measured.

Those that understand a text, instead of writing one, can shrink far: the answer is one of a few. An
encoder of BERT's kind learns here, teaches smaller ones, is pruned, kept in eight bits and shipped.
"""

from __future__ import annotations

import importlib
from typing import Any

_FROM = {
    "HASHED": "hashed",
    "SMALLEST": "hashed",
    "NARROW": "classifying",
    "TEACHER": "classifying",
    "SHIPPED": "exported",
    "BagOfWords": "words",
    "ExportedClassifier": "exported",
    "ExportedHashed": "exported",
    "HashedClassifier": "hashed",
    "Measured": "measuring",
    "accuracy_chart": "charts",
    "categories_of": "labels",
    "examples": "labels",
    "export_classifier": "exporting",
    "hub_classifier": "classifying",
    "measure_classifiers": "measuring",
    "new_classifier": "classifying",
    "new_hashed": "hashed",
    "open_classifier": "exported",
    "pretrain": "contrastive",
    "recorded": "measuring",
    "save_classifier": "exporting",
    "table_of": "measuring",
    "teach_classifier": "classifying",
    "teach_hashed": "hashed",
    "without_neurons": "classifying",
}
__all__ = list(_FROM)


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for: a classifier is to be opened without PyTorch."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"shared.understanding.{_FROM[name]}"), name)
