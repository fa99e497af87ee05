"""The rules of ``shared.data`` applied to whole sources, shard by shard, on one machine or many.

``prepare`` does it all, and goes on where it was killed.
"""

from shared.pipeline.steps import (
    ENGINES,
    course_items,
    prepare,
    read_products,
    read_records,
)

__all__ = ["ENGINES", "course_items", "prepare", "read_products", "read_records"]
