"""Compression: pricers 10 to 100 times smaller and faster, and what that costs.

A student learns from a teacher (distillation), loses what it hardly uses (pruning) and keeps eight
bits of each number (quantisation); then ONNX Runtime prices with it, without PyTorch.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "PRESETS": "compression.student",
    "OnnxLanguagePricer": "compression.exported_text",
    "Opening": "compression.measuring",
    "Plan": "compression.network",
    "Student": "compression.student",
    "StudentPricer": "compression.exported",
    "distil": "compression.student",
    "export_language_model": "compression.language_model",
    "export_student": "compression.exporting",
    "measure": "compression.measuring",
    "prepare": "compression.lessons",
    "size_chart": "compression.charts",
    "sweep": "compression.pruning",
    "to_markdown": "compression.measuring",
    "unpriced": "compression.lessons",
}
__all__ = list(_FROM)

# Import a part when it is asked for: an exported model is to be opened without PyTorch.
__getattr__ = lazy(__name__, _FROM)
