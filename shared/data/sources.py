"""Sources of raw records: local JSONL, the embedded catalogue, Amazon Reviews 2023.

Every source is read as blocks of JSON lines, so that one parser meets the same dirt everywhere
and every malformed line can be named by file and line number.
"""

from __future__ import annotations

import difflib
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa

from shared.data.schema import RECORD

AMAZON = (
    "hf://datasets/McAuley-Lab/Amazon-Reviews-2023@2b6d039ed471f2ba5fd2acb718bf33b0a7e5598e"
    "/raw/meta_categories/meta_{category}.jsonl"
)
"""Amazon Reviews 2023 metadata as plain JSONL, pinned to one revision of the data set."""

AMAZON_CATEGORIES = (
    "All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Automotive Baby_Products "
    "Beauty_and_Personal_Care Books CDs_and_Vinyl Cell_Phones_and_Accessories "
    "Clothing_Shoes_and_Jewelry Digital_Music Electronics Gift_Cards Grocery_and_Gourmet_Food "
    "Handmade_Products Health_and_Household Health_and_Personal_Care Home_and_Kitchen "
    "Industrial_and_Scientific Kindle_Store Magazine_Subscriptions Movies_and_TV "
    "Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies Software "
    "Sports_and_Outdoors Subscription_Boxes Tools_and_Home_Improvement Toys_and_Games "
    "Video_Games"
).split()

BLOCK_LINES = 4096
MAX_LINE_BYTES = 16 * 2**20
MAX_MALFORMED_SHARE = 0.10
MAX_MALFORMED_FEW = 5
"""A source with more malformed lines than this share, and more than this few, is refused."""

_CHUNK_BYTES = 4 * 2**20
_NOT_JSONL = {
    b"\xff\xfe": "is UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8",
    b"PAR1": "is a Parquet file; export it as JSON Lines first",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"(\xb5/\xfd": "is zstd-compressed; unpack it, or compress it with gzip",
}


class SourceError(ValueError):
    """A source cannot be read; the message names the file, the line and the remedy."""


@dataclass
class Block:
    """Consecutive lines of one file. ``first`` is the number of the first line, from 1."""

    file: str
    first: int
    lines: list[bytes]


@dataclass
class Malformed:
    """What could not be read: how many lines, and the first few by file, line and reason."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, file: str, line: int, reason: str) -> None:
        """Count one line and keep it as an example while there are few."""
        self.count += 1
        if len(self.examples) < 10:
            self.examples.append(f"{file}, line {line}: {reason}")

    def __iadd__(self, other: Malformed) -> Malformed:
        """Add what another block found."""
        self.count += other.count
        self.examples = (self.examples + other.examples)[:10]
        return self

    def check(self, lines: int) -> None:
        """Raise SourceError if too many of the ``lines`` read so far are malformed."""
        allowed = max(MAX_MALFORMED_FEW, MAX_MALFORMED_SHARE * lines)
        if self.count > allowed or self.count == lines:
            raise SourceError(
                f"{self.count} of {lines} lines are malformed (at most {MAX_MALFORMED_SHARE:.0%} "
                f"may be); the first: {'; '.join(self.examples[:3])}. Each line must be one JSON "
                "object in UTF-8: check that this is the file you meant"
            )


def source_blocks(
    source: str, *, size: int = 24_000, seed: int = 42, amazon: str = AMAZON
) -> Iterator[Block]:
    """Yield the lines of a source in blocks of up to 4,096.

    ``source`` is ``embedded`` (``size`` records of the built-in catalogue, from ``seed``), a
    path of a .jsonl or .jsonl.gz file or of a folder of them, or ``amazon:CATEGORY[,…]``
    (streamed from the address template ``amazon``). Raises SourceError.
    """
    if source == "embedded":
        return _embedded_blocks(size, seed)
    if source.startswith("amazon:"):
        return _amazon_blocks(amazon_categories(source), amazon)
    return _file_blocks(source_files(source))


def source_files(source: str) -> list[Path]:
    """Return the JSONL files a path stands for, sorted by name; raise SourceError if none."""
    path = Path(source)
    if not path.exists():
        raise SourceError(
            f"{source}: no such file or folder. A source is a .jsonl or .jsonl.gz file, a folder "
            "of them, 'embedded', or 'amazon:CATEGORY'"
        )
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not files:
        raise SourceError(f"{source}: this folder holds no .jsonl or .jsonl.gz file")
    return files


def amazon_categories(source: str) -> list[str]:
    """Split ``amazon:A,B`` into the data set's category names; raise SourceError if unknown."""
    names = [n.strip().replace(" ", "_") for n in source.removeprefix("amazon:").split(",")]
    for name in names:
        if name not in AMAZON_CATEGORIES:
            near = difflib.get_close_matches(name, AMAZON_CATEGORIES, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SourceError(
                f"{source}: {name!r} is no category of Amazon Reviews 2023{hint} "
                f"(there are: {', '.join(AMAZON_CATEGORIES)})"
            )
    return names


def parse_block(block: Block) -> tuple[pa.Table, Malformed]:
    """Parse a block of JSON lines into a table in the RECORD schema.

    Lines that are not a JSON object are counted, and the rest is kept. Fields of another type
    than declared are brought to it (a number to its text, a text to a list of one), because
    shops do list them so.
    """
    records, malformed = [], Malformed()
    for number, line in enumerate(block.lines, start=block.first):
        if len(line) > MAX_LINE_BYTES:
            malformed.add(block.file, number, f"longer than {MAX_LINE_BYTES // 2**20} MB")
            continue
        try:
            record = orjson.loads(line)
            if type(record) is dict:
                records.append(record)
            else:
                malformed.add(block.file, number, f"a JSON {type(record).__name__}, no object")
        except orjson.JSONDecodeError as error:
            malformed.add(block.file, number, _why(line, error))
    return records_table(records), malformed


def records_table(records: list[dict]) -> pa.Table:
    """Bring raw records (dicts of whatever JSON held) to a table in the RECORD schema."""
    columns = {}
    for column in RECORD:
        bring = _to_list if pa.types.is_list(column.type) else _to_text
        if column.name == "details":
            bring = _to_json
        values = [bring(r.get(column.name)) for r in records]
        columns[column.name] = pa.array(values, column.type)
    return pa.table(columns, schema=RECORD)


def _why(line: bytes, error: Exception) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 (byte {line[wrong.start]:#04x} at {wrong.start})"
    return f"not JSON ({str(error).split(':')[0]})"


def _to_text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if type(value) is list:
        return " ".join(_to_text(v) or "" for v in value).strip() or None
    if type(value) is dict:
        return orjson.dumps(value).decode()
    return str(value)


def _to_list(value: Any) -> list[str]:
    if value is None:
        return []
    if type(value) is list:
        return [v if type(v) is str else _to_text(v) or "" for v in value]
    return [_to_text(value) or ""]


def _to_json(value: Any) -> str | None:
    return value if value is None or type(value) is str else orjson.dumps(value).decode()


def _embedded_blocks(size: int, seed: int) -> Iterator[Block]:
    from shared.embedded import generate

    lines: list[bytes] = []
    first = 1
    for record in generate(size, seed=seed):
        lines.append(orjson.dumps(record))
        if len(lines) == BLOCK_LINES:
            yield Block("embedded catalogue", first, lines)
            first, lines = first + len(lines), []
    if lines:
        yield Block("embedded catalogue", first, lines)


def _file_blocks(files: list[Path]) -> Iterator[Block]:
    for path in files:
        found = False
        for block in _blocks_of_file(path):
            found = True
            yield block
        if not found:
            raise SourceError(f"{path}: the file is empty; was the download interrupted?")


def _blocks_of_file(path: Path) -> Iterator[Block]:
    number, lines = 0, []
    first = 1
    try:
        with _open(path) as stream:
            for line in _lines(stream):
                number += 1
                if line.strip():
                    lines.append(line)
                elif lines:  # a blank line ends the block, so that line numbers stay true
                    yield Block(path.name, first, lines)
                    lines = []
                if not lines:
                    first = number + 1
                if len(lines) == BLOCK_LINES:
                    yield Block(path.name, first, lines)
                    first, lines = number + 1, []
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{path}: the gzip data is cut off or damaged after line {number} ({error}); "
            "download the file again"
        ) from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
    if lines:
        yield Block(path.name, first, lines)


def _open(path: Path) -> IO[bytes]:
    """Open a file by what it holds, not by what it is called."""
    stream = path.open("rb")
    head = stream.read(4)
    stream.seek(0)
    for magic, complaint in _NOT_JSONL.items():
        if head.startswith(magic):
            stream.close()
            raise SourceError(f"{path}: this {complaint}")
    return gzip.open(stream) if head.startswith(b"\x1f\x8b") else stream


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Split a stream into lines, holding at most the first part of an over-long one."""
    rest = b""
    start = True
    while chunk := stream.read(_CHUNK_BYTES):
        if start:
            chunk, start = chunk.removeprefix(b"\xef\xbb\xbf"), False
        *lines, tail = chunk.split(b"\n")
        if lines:
            lines[0] = rest + lines[0]
            yield from lines
            rest = tail
        elif len(rest) < MAX_LINE_BYTES:
            rest += tail  # an over-long line is cut here: it no longer parses, and is counted
    if rest:
        yield rest


def _amazon_blocks(categories: list[str], template: str) -> Iterator[Block]:
    """Stream categories through ``datasets`` as plain text lines.

    Its JSON reader infers a type a chunk and fails where a shop writes a price as a number here
    and as text there; its text reader gives the very lines, and our own parser does the rest.
    """
    from datasets import load_dataset

    for category in categories:
        url = template.format(category=category)
        first = 1
        try:
            # Read as Latin-1, every byte survives: bad UTF-8 is then one malformed line of ours.
            stream = load_dataset(
                "text", data_files=url, split="train", streaming=True, encoding="latin-1"
            )
            for batch in stream.iter(batch_size=BLOCK_LINES):
                lines = [line.encode("latin-1") for line in batch["text"]]
                yield Block(f"meta_{category}.jsonl", first, lines)
                first += len(lines)
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"amazon:{category}: cannot be streamed from {url} after line {first - 1} "
                f"({type(error).__name__}: {str(error)[:200]}). Check the connection, or download "
                "the file and pass its path"
            ) from error
        if first == 1:
            raise SourceError(f"amazon:{category}: {url} is empty")
