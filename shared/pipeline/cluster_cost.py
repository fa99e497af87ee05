"""What a cluster would take: arithmetic with its assumptions in plain sight, no forecast."""

from __future__ import annotations

from collections.abc import Sequence

AMAZON_RECORDS = 48_000_000
"""Products in Amazon Reviews 2023, all categories."""


def cluster_plan(
    records: int = AMAZON_RECORDS,
    *,
    machines: Sequence[int] = (1, 2, 4, 8, 16),
    cores: int = 16,
    records_per_core_second: float = 25_000.0,
    efficiency: float = 0.5,
    start_minutes: float = 5.0,
    dollars_per_hour: float = 0.8,
    item_share: float = 0.47,
    sketches_per_core_second: float = 10_000.0,
    items_per_second_alone: float = 40_000.0,
    bytes_per_record: int = 1_800,
    bytes_per_item: int = 1_500,
) -> list[dict[str, float]]:
    """Return what it takes to curate ``records`` on some machines; a row a number of machines.

    ``minutes`` and ``dollars`` in all, ``machine_hours`` paid for, ``read_gb`` of raw JSON and
    ``work_gb`` on the shared disk. The assumptions, each to be put right by whoever knows better:

    - a machine has ``cores``; a core curates ``records_per_core_second`` (measured by
      tests/benchmarks/curation.py), and a cluster keeps the share ``efficiency`` of that: reading
      over a network, the last file while most cores wait, tasks done twice;
    - it costs ``dollars_per_hour`` (on-demand, 16 cores, 64 GB) from its start, and is ready
      after ``start_minutes``;
    - ``item_share`` of the records becomes items. What follows is done by one machine while the
      others wait: its cores make ``sketches_per_core_second``, and one of them sorts, joins
      clusters and writes ``items_per_second_alone``.

    Raises ValueError where one of the numbers is not above zero.
    """
    rates = (cores, records_per_core_second, efficiency, item_share, sketches_per_core_second)
    if min(records, *machines, *rates, items_per_second_alone) <= 0:
        raise ValueError("records, machines and rates must be above zero")
    items = records * item_share
    alone = items / (cores * sketches_per_core_second) + items / items_per_second_alone
    rows = []
    for count in machines:
        together = records / (count * cores * records_per_core_second * efficiency)
        hours = (60 * start_minutes + together + alone) / 3600
        rows.append(
            {
                "machines": count,
                "minutes": round(60 * hours, 1),
                "machine_hours": round(count * hours, 2),
                "dollars": round(count * hours * dollars_per_hour, 2),
                "read_gb": round(records * bytes_per_record / 1e9, 1),
                "work_gb": round(items * bytes_per_item / 1e9, 1),
            }
        )
    return rows
