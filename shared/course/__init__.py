"""The course as a whole: its notebooks in order, its front page, its set-up."""

from shared.course.setup_cell import welcome

__all__ = ["welcome"]
