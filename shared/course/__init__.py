"""The course as a whole: its command line, its notebooks in order, its set-up."""

from shared.course.setup_cell import welcome

__all__ = ["welcome"]
