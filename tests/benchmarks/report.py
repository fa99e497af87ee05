"""Write the figures of the benchmarks into the README: nothing there is typed by hand.

python tests/benchmarks/report.py          # from tests/benchmarks/results/*.json
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from shared.operating import batching_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
SHARED = ROOT / "shared"
_BLOCK = re.compile(r"(<!-- benchmarks: [^>]*-->\n).*?(<!-- end of benchmarks -->)", re.DOTALL)


def with_figures(readme: str, results: Path = RESULTS) -> str:
    """Return the README's text with the benchmarks' tables between its two markers."""
    if not _BLOCK.search(readme):
        raise ValueError("README.md has lost the two benchmark comments: put them back")
    parts = [
        ladder(_read(results / "ladder-records.json")),
        curation(_read(results / "curation.json")),
        calls(_read(results / "frontier.json")),
        open_model(_read(results / "open_model.json")),
        retrieval(_read(SHARED / "retrieval" / "recorded" / "benchmark.json")),
        compression(_read(SHARED / "compression" / "recorded" / "compression.json")),
        understanding(_read(SHARED / "understanding" / "recorded" / "understanding.json")),
        serving(_read(SHARED / "operating" / "recorded" / "serving.json")),
    ]
    text = "\n" + "\n".join(parts) + "\n"
    return _BLOCK.sub(lambda block: block[1] + text + block[2], readme)


def ladder(found: dict) -> str:
    """Return the ladder on real records as Markdown, best first."""
    lines = ["| pricer | error, dollars | balanced prices | seconds to fit |", "|---|---|---|---|"]
    for row in reversed(found["rows"]):
        error = f"{row['mae']:.2f} [{row['mae_low']:.2f}, {row['mae_high']:.2f}]"
        lines.append(
            f"| {row['pricer']} | {error} | {row['balanced']:.0f} | {row['fit_seconds']:.1f} |"
        )
    best = found["rows"][-1]
    note = (
        f"On real records: {found['train']:,} training and {best['n']:,} test products, measured "
        f"{found['date']} on {found['hardware']}. The best is at "
        f"{found['ratio_to_random_forest']:.2f} times the error of the random forest, and all were "
        f"fitted in "
        f"{found['ladder_seconds'] / 60:.1f} minutes. Its 90 % intervals hold "
        f"{best['coverage']:.1%} of the true prices. Balanced prices: the same estimates, weighted "
        "as if the mean price were 219 dollars, as in the test sets of many courses."
    )
    return "\n".join([*lines, "", note, ""])


def curation(found: dict) -> str:
    """Return speed and memory of curation as Markdown."""
    lines = [
        "| records | records a second | peak memory, GB | near-duplicates, items a second |",
        "|---|---|---|---|",
    ]
    for row in found["curve"]:
        memory = max(row["peak_gb"].values())
        speed, pairs = row["records_per_second"], row["near_duplicates_items_per_second"]
        lines.append(f"| {row['records']:,} | {speed:,.0f} | {memory:.2f} | {pairs:,.0f} |")
    hardware = found["hardware"]
    note = (
        f"Curation (parse, clean, filter, write Parquet; all processes counted), measured "
        f"{found['date']} on {hardware['cores']} cores of {hardware['cpu']}."
    )
    return "\n".join([*lines, "", note, ""])


def calls(found: dict) -> str:
    """Return in a sentence what many calls at a time buy."""
    one, *_, most = found["runs"]
    lost = sum(run["failed"] for run in found["runs"])
    usual = next(run for run in found["runs"] if run["concurrency"] == found["default"])
    return (
        f"Asking a language model about {found['items']} products, on a server that takes "
        f"{found['latency_seconds']:g} s for each answer: {one['seconds']:.0f} s one after the "
        f"other, {usual['seconds']:.1f} s with {usual['concurrency']} calls at a time (the "
        f"default, {usual['ratio']:.0f} times as fast), {most['seconds']:.1f} s with "
        f"{most['concurrency']}. Measured {found['date']}; {lost} estimates failed.\n"
    )


def open_model(found: dict) -> str:
    """Return in a few sentences what fine-tuning the tiny model reaches."""
    speed = found["items_a_second"]
    return (
        f"Fine-tuning the tiny model in four bits on {found['trained_on']:,} items: "
        f"{found['seconds']:.0f} s on two cores, then off by ${found['dollars']:.2f} on "
        f"{found['tested_on']:,} test products (medians of {len(found['seeds'])} seeds). That is "
        f"{found['ratio_to_random_forest']:.2f} times the error of the random forest and "
        f"{found['ratio_to_ridge']:.2f} times that of the ridge on the same items. Prices read in "
        f"batches: {speed['read']:.0f} a second, {speed['ratio']:.0f} times as many as written one "
        f"by one. Measured {found['date']}.\n"
    )


def retrieval(found: dict) -> str:
    """Return what half a million products in the vector database take."""
    each = found["milliseconds_a_query"]
    return (
        f"A vector database of {found['items']:,} products on {found['hardware']['cores']} cores: "
        f"built in {found['build_seconds'] / 60:.1f} minutes, at most {found['peak_gb']:.1f} GB of "
        f"memory, {found['disk_gb']:.1f} GB on disk; {each['median']:.0f} ms a query, recall@5 "
        f"{found['recall_at_5']:.2f} of the exact search; {found['prices_changed']:,} new prices "
        f"in {found['seconds_for_that']:.1f} s, with {found['embedded_for_that']} texts embedded "
        f"anew. Measured {found['date']}.\n"
    )


def compression(found: dict) -> str:
    """Return both teachers and, of each, its best student, in a table."""
    lines = [
        "| pricer | error, dollars | against its teacher | size | faster |",
        "|---|---|---|---|---|",
    ]
    for teacher, *students in found["rows"].values():
        good = [row for row in students if row["mae"] <= 1.05 * teacher["mae"]]
        best = max(good, key=lambda row: row["smaller"])
        smallest = max(students, key=lambda row: row["smaller"])
        for row in (teacher, best, *([] if smallest is best else [smallest])):
            error = f"{row['mae']:.2f} [{row['mae_low']:.2f}, {row['mae_high']:.2f}]"
            worse = f"{row['mae'] / teacher['mae'] - 1:+.1%}" if row is not teacher else "—"
            size = row["spent"]["bytes"] / 1000
            size = f"{size:,.0f} kB" + ("" if row is teacher else f", {row['smaller']:.0f} × less")
            lines.append(f"| {row['name']} | {error} | {worse} | {size} | {row['faster']:,.0f} × |")
    note = (
        f"Compression: students that learnt from each teacher with {found['texts']:,} texts "
        f"without a price, on {found['tested_on']:,} test products, one thread. Measured "
        f"{found['date']}."
    )
    return "\n".join([*lines, "", note, ""])


def understanding(found: dict) -> str:
    """Return in a sentence how small a classifier of categories gets."""
    first, *others = found["rows"]
    good = [row for row in others if row["accuracy"] >= first["accuracy"] - 0.01]
    best = max(good, key=lambda row: row["smaller"])
    return (
        f"Understanding: an encoder tells the category of {first['accuracy']:.1%} of the test "
        f"products; {best['name']} of {best['accuracy']:.1%}, and is {best['smaller']:,.0f} times "
        f"smaller and {best['faster']:,.0f} times faster. Measured {found['date']}.\n"
    )


def serving(found: dict) -> str:
    """Return what batches bring the service, and what a soak and kills lost."""
    soak, killed = found["soak"], found["killed"]
    lines = [f"Serving, on {found['machine']['cores']} cores, the load included:", ""]
    lines += [batching_table(found["batching"]), ""]
    load, hit = soak["load"], killed["load"]
    note = (
        f"Times in milliseconds; p95 at {found['share']:.0%} of what each size can do itself, and "
        f"all at {found['share']:.0%} of what one by one can do. A soak of "
        f"{load['seconds'] / 60:.0f} minutes at {load['rate']:.0f} requests a second: "
        f"{load['answered']:,} answered, {load['refused']:,} refused (503, 429), {load['lost']} "
        f"lost, {load['wrong']} wrong, memory from "
        f"{soak['megabytes_first']:.0f} to {soak['megabytes_last']:.0f} MB. kill -9 of a worker "
        f"under load, {killed['kills']} times: {hit['answered']:,} answered, {hit['lost']} lost, "
        f"{hit['wrong']} wrong. {_by_wrk(found)}Measured {found['date']}."
    )
    return "\n".join([*lines, note, ""])


def _by_wrk(found: dict) -> str:
    """Return what somebody else's load generator finds that batches bring."""
    best = {row["pricer"]: row for row in found.get("wrk", ())}  # the last one: the largest
    said = " and ".join(
        f"{name} {row['products_a_second']:,.0f} a second in batches of {row['max_batch']}, "
        f"{row['faster']:.1f} times as many as one by one"
        for name, row in best.items()
    )
    return f"By wrk, a load generator of others: {said}. " if said else ""


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Rewrite the README's block."""
    path = ROOT / "README.md"
    path.write_text(with_figures(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
