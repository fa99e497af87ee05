"""The code the lessons share: from a shop's records to an honest leaderboard.

Rooms, top to bottom; imports only point down (``tests/test_architecture.py`` keeps it so)::

    course      command line, running notebooks, environment check
    pricers     every way to price a product, one protocol
    evaluation  metrics with intervals, comparisons, leaderboard, charts
    data        records -> items: sources, curation, duplicates, splits, storage
    embedded    a product catalogue that needs no download
    settings    profile, source, folders, seed
"""

__version__ = "0.1.0"
