"""The course's machinery for a problem of your own: ``python -m shared new PATH`` starts there.

A project is a folder with a mapping (``project.toml``: which of your columns is what) and a few
lines that call this room: rows in, curated items, baselines, a tuned model, a service out.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "Project": "template.project",
    "ProjectError": "template.project",
    "baselines": "template.steps",
    "compare": "template.outcome",
    "distil": "template.steps",
    "estimate": "template.outcome",
    "explained": "template.project",
    "new_project": "template.writing",
    "open_project": "template.project",
    "prepare": "template.steps",
    "release": "template.outcome",
    "tune": "template.steps",
}
__all__ = list(_FROM)

# Import a part when it is asked for: to write a project takes no PyTorch.
__getattr__ = lazy(__name__, _FROM)
