"""Compression: pricers 10 to 100 times smaller and faster, and what that costs.

A student learns from a teacher (distillation), loses what it hardly uses (pruning) and keeps eight
bits of each number (quantisation); then ONNX Runtime prices with it, without PyTorch.
"""

from __future__ import annotations

import importlib
from typing import Any

_FROM = {
    "PRESETS": "student",
    "OnnxLanguagePricer": "exported_text",
    "Opening": "measuring",
    "Plan": "network",
    "Student": "student",
    "StudentPricer": "exported",
    "distil": "student",
    "export_language_model": "language_model",
    "export_student": "exporting",
    "measure": "measuring",
    "prepare": "lessons",
    "size_chart": "charts",
    "sweep": "pruning",
    "to_markdown": "measuring",
    "unpriced": "lessons",
}
__all__ = list(_FROM)


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for: an exported model is to be opened without PyTorch."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"shared.compression.{_FROM[name]}"), name)
