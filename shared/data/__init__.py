"""From a shop's records to items a model can learn from: the rules, each a pure function.

``shared.pipeline.prepare`` applies them to a whole source.
"""

from shared.data.curation import Report, assemble, curate
from shared.data.items import Items, open_items, price_mix, products
from shared.data.parsing import Malformed, SourceError, parse_block, records_table
from shared.data.schema import ITEM, PREDICTION, PRICE_BANDS, RECORD, SPLITS, Product
from shared.data.sources import source_blocks

__all__ = [
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
    "curate",
    "open_items",
    "parse_block",
    "price_mix",
    "products",
    "records_table",
    "source_blocks",
]
