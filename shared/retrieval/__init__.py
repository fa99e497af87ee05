"""Retrieval: find the products most like one, and price it by what they cost.

``ProductIndex`` holds the knowledge: texts, prices and vectors, on disk, in versions.
"""

from shared.retrieval.embeddings import (
    Embedding,
    SentenceEmbedding,
    StaticEmbedding,
    TfidfEmbedding,
)
from shared.retrieval.found import Changes, IndexUnusable, Neighbour, Version, clusters_of
from shared.retrieval.grounding import Outside, outside_range
from shared.retrieval.hybrid import HybridSearch, reciprocal_rank_fusion
from shared.retrieval.index import ProductIndex
from shared.retrieval.open_model import (
    Layout,
    NeighbourModelPricer,
    neighbour_model_pricer,
    tune_with_neighbours,
)
from shared.retrieval.pricers import NeighbourPricer, RetrievalPricer
from shared.retrieval.stale import Followed, reprice, stale_knowledge

__all__ = [
    "Changes",
    "Embedding",
    "Followed",
    "HybridSearch",
    "IndexUnusable",
    "Layout",
    "Neighbour",
    "NeighbourModelPricer",
    "NeighbourPricer",
    "Outside",
    "ProductIndex",
    "RetrievalPricer",
    "SentenceEmbedding",
    "StaticEmbedding",
    "TfidfEmbedding",
    "Version",
    "clusters_of",
    "neighbour_model_pricer",
    "outside_range",
    "reciprocal_rank_fusion",
    "reprice",
    "stale_knowledge",
    "tune_with_neighbours",
]
