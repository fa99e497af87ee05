"""Releases: which version of which model answers, what is known of it, and how to go back.

A registry on disk keeps every version whole, with checksums, interval and metrics; a new one is
tried on a share of the requests first, and goes back by itself if it is worse.
"""

from __future__ import annotations

from shared.lazy import lazy

_FROM = {
    "KINDS": "releases.release",
    "Advice": "releases.retraining",
    "Figure": "releases.nonfunctional",
    "Figures": "releases.nonfunctional",
    "Look": "releases.sequential",
    "Plan": "releases.sequential",
    "Registry": "releases.registry",
    "Release": "releases.release",
    "ReleaseError": "releases.release",
    "ReleasedPricer": "releases.release",
    "Rollout": "releases.rollout",
    "chances": "releases.sequential",
    "check_requirements": "releases.nonfunctional",
    "error_of": "releases.nonfunctional",
    "refit": "releases.retraining",
    "shipped_release": "releases.shipped",
    "should_retrain": "releases.retraining",
}
__all__ = list(_FROM)

# Import a part when it is asked for: the shipped release is to be opened without PyTorch.
__getattr__ = lazy(__name__, _FROM)
