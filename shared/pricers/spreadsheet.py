"""Pricing in a spreadsheet: products out as CSV, answers back in, whatever Excel did in between."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from shared.data import Product
from shared.data.storage import replacing
from shared.pricers.human import Answers, read_price

COLUMNS = ("id", "title", "category", "text", "price")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def export_csv(products: Sequence[Product], path: Path, answers: dict | None = None) -> Path:
    """Write products with an empty column ``price`` (or a rater's answers), and return the path.

    With a byte order mark, so that Excel reads UTF-8; a text that Excel would take for a formula
    gets an apostrophe in front.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for product in products:
        price = (answers or {}).get(product.id)
        cells = [getattr(product, name) for name in COLUMNS[:-1]]
        writer.writerow([*map(_harmless, cells), "" if price is None else f"{price:.2f}"])
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(b"\xef\xbb\xbf" + table.getvalue().encode("utf-8"))
    return Path(path)


def import_csv(path: Path, products: Sequence[Product], answers: Answers, rater: str) -> list[str]:
    """Take over a rater's prices from a spreadsheet; return a complaint for each unusable row.

    Rows may be missing or in another order, further columns are ignored, and an empty price means
    not answered. Needed are the columns ``id`` and ``price``. Raises ValueError if the file cannot
    be read as a table; good rows around bad ones are taken over.
    """
    known, seen, complaints = {p.id for p in products}, set(), []
    # Excel takes the ISBN 0312345678 for a number, and drops the nought.
    shortened = {i.lstrip("0"): i for i in sorted(known)}
    for line, row in _rows(Path(path)):
        item, price = _plain(row["id"]), row["price"].strip().removeprefix("'")
        item = item if item in known else shortened.get(item, item)
        where = f"{Path(path).name}, line {line}"
        if not item and not price:
            continue
        if item not in known:
            complaints.append(
                f"{where}: there is no product {item[:40]!r} among those asked about; copy its id "
                "from a new export, in a column formatted as text"
            )
        elif item in seen:
            complaints.append(f"{where}: product {item} stands there twice; the first one counts")
        elif price:
            try:
                answers.add(rater, item, read_price(price))
                seen.add(item)
            except ValueError as error:
                complaints.append(f"{where}: {error}")
    return complaints


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    text = _decoded(path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in ("id", "price") if name not in names]:
            raise ValueError(f"{path.name}: no column {' and no column '.join(missing)}")
        places = {name: names.index(name) for name in ("id", "price")}
        rows, line = [], reader.line_num + 1
        for cells in reader:
            cells += [""] * (len(names) - len(cells))
            rows.append((line, {name: cells[place] for name, place in places.items()}))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path.name}, line {reader.line_num}: no CSV ({error})") from error
    return rows


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if content.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path.name}: this is an Excel workbook; save it as CSV UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")  # what Excel writes if not told UTF-8


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _plain(cell: str) -> str:
    cell = cell.strip()
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
