"""From a shop's records to items a model can learn from.

``prepare`` does it all; ``curate`` is the step in the middle, one pure function.
"""

from shared.data.curation import Report, assemble, curate
from shared.data.items import Items, open_items, price_mix, products
from shared.data.parsing import Malformed, SourceError, parse_block, records_table
from shared.data.pipeline import (
    ENGINES,
    course_items,
    prepare,
    read_products,
    read_records,
)
from shared.data.schema import ITEM, PREDICTION, PRICE_BANDS, RECORD, SPLITS, Product
from shared.data.sources import source_blocks

__all__ = [
    "ENGINES",
    "ITEM",
    "PREDICTION",
    "PRICE_BANDS",
    "RECORD",
    "SPLITS",
    "Items",
    "Malformed",
    "Product",
    "Report",
    "SourceError",
    "assemble",
    "course_items",
    "curate",
    "open_items",
    "parse_block",
    "prepare",
    "price_mix",
    "products",
    "read_products",
    "read_records",
    "records_table",
    "source_blocks",
]
