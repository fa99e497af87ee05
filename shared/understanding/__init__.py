"""Understanding: models that say of which category a product is, made small and measured.

Those that understand a text, instead of writing one, can shrink far: the answer is one of a few. An
encoder of BERT's kind learns here, teaches smaller ones, is pruned, kept in eight bits and shipped.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "HASHED": "understanding.hashed",
    "SMALLEST": "understanding.hashed",
    "NARROW": "understanding.classifying",
    "TEACHER": "understanding.classifying",
    "SHIPPED": "understanding.exported",
    "BagOfWords": "understanding.words",
    "ExportedClassifier": "understanding.exported",
    "ExportedHashed": "understanding.exported",
    "HashedClassifier": "understanding.hashed",
    "Measured": "understanding.measuring",
    "accuracy_chart": "understanding.charts",
    "categories_of": "understanding.labels",
    "examples": "understanding.labels",
    "export_classifier": "understanding.exporting",
    "hub_classifier": "understanding.classifying",
    "measure_classifiers": "understanding.measuring",
    "new_classifier": "understanding.classifying",
    "new_hashed": "understanding.hashed",
    "open_classifier": "understanding.exported",
    "pretrain": "understanding.contrastive",
    "recorded": "understanding.measuring",
    "save_classifier": "understanding.exporting",
    "table_of": "understanding.measuring",
    "teach_classifier": "understanding.classifying",
    "teach_hashed": "understanding.hashed",
    "without_neurons": "understanding.classifying",
}
__all__ = list(_FROM)

# Import a part when it is asked for: a classifier is to be opened without PyTorch.
__getattr__ = lazy(__name__, _FROM)
