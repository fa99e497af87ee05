"""Sources of raw records: local JSONL, the embedded catalogue, Amazon Reviews 2023.

Every source is read as blocks of JSON lines, so that one parser meets the same dirt everywhere
and every malformed line can be named by file and line number.
"""

from __future__ import annotations

import difflib
import gzip
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

import orjson

from shared.data.parsing import MAX_LINE_BYTES, Block, SourceError, SourceInterrupted

_DAMAGED: tuple = (EOFError, zlib.error, gzip.BadGzipFile)
try:
    from isal import igzip, isal_zlib  # the same format, unpacked at twice the speed

    _open_gzip, _DAMAGED = igzip.open, (*_DAMAGED, isal_zlib.error)
except ImportError:
    _open_gzip = gzip.open

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
_CHUNK_BYTES = 4 * 2**20
_NOT_JSONL = {
    b"\xff\xfe": "is UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8",
    b"PAR1": "is a Parquet file; export it as JSON Lines first",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"(\xb5/\xfd": "is zstd-compressed; unpack it, or compress it with gzip",
}


def source_blocks(
    source: str, *, size: int = 24_000, seed: int = 42, amazon: str | None = None
) -> Iterator[Block]:
    """Yield the lines of a source in blocks of up to 4,096.

    ``source`` is ``embedded`` (``size`` records of the built-in catalogue, from ``seed``), a
    path of a .jsonl or .jsonl.gz file or of a folder of them, or ``amazon:CATEGORY[,…]``
    (streamed from the address template ``amazon``, by default the pinned data set). Raises
    SourceError.
    """
    parts = source_parts(source, size=size, seed=seed, amazon=amazon)
    return (block for part in parts for block in part())


def source_parts(
    source: str, *, size: int = 24_000, seed: int = 42, amazon: str | None = None
) -> list[Callable[[], Iterator[Block]]]:
    """Return what of a source can be read side by side: a function a file, or a category.

    Each can be pickled, and yields blocks as ``source_blocks`` does, which chains them.
    """
    if source == "embedded":
        return [partial(_embedded_blocks, size, seed)]
    if source.startswith("amazon:"):
        names = amazon_categories(source)
        return [partial(_amazon_blocks, name, amazon or AMAZON) for name in names]
    return [partial(_file_blocks, path) for path in source_files(source)]


def first_lines(blocks: Iterator[Block], count: int | None) -> Iterator[Block]:
    """Yield the first ``count`` lines that are not blank, or all; read no block beyond them."""
    if count is None:
        yield from blocks
        return
    for block in blocks:
        lines = block.lines
        held = [place for place, line in enumerate(lines, start=1) if line.strip()][:count]
        count -= len(held)
        if held:
            yield Block(block.file, block.first, b"\n".join(lines[: held[-1]]))
        if not count:
            return


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


def _embedded_blocks(size: int, seed: int) -> Iterator[Block]:
    from shared.embedded import generate

    records = generate(size, seed=seed)
    for first in range(1, size + 1, BLOCK_LINES):
        lines = map(orjson.dumps, islice(records, BLOCK_LINES))
        yield Block("embedded catalogue", first, b"\n".join(lines))


def _file_blocks(path: Path) -> Iterator[Block]:
    found = False
    for block in _blocks_of_file(path):
        found = True
        yield block
    if not found:
        raise SourceError(f"{path}: the file is empty; was the download interrupted?")


def _blocks_of_file(path: Path) -> Iterator[Block]:
    try:
        with _open(path) as stream:
            for block in _blocks(stream, path.name):
                if block.first == 1 and block.text.lstrip().startswith(b"["):
                    raise SourceError(
                        f"{path}: this is one JSON array; write one object a line "
                        "(for example with: jq -c '.[]')"
                    )
                yield block
    except _DAMAGED as error:
        raise SourceError(
            f"{path}: the gzip data is cut off or damaged ({error}); download the file again"
        ) from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error


def _blocks(stream: IO[bytes], file: str) -> Iterator[Block]:
    """Cut a stream into blocks of at most ``BLOCK_LINES`` lines."""
    first = 1
    for text in _texts(stream):
        while text is not None:
            block, text = Block(file, first, text), None
            if (length := len(block)) > BLOCK_LINES:
                *lines, text = block.text.split(b"\n", BLOCK_LINES)
                block, length = Block(file, first, b"\n".join(lines)), BLOCK_LINES
            if not block.text.isspace() and block.text:
                yield block
            first += length


def _open(path: Path) -> IO[bytes]:
    """Open a file by what it holds, not by what it is called."""
    stream = path.open("rb")
    head = stream.read(4)
    stream.seek(0)
    for magic, complaint in _NOT_JSONL.items():
        if head.startswith(magic):
            stream.close()
            raise SourceError(f"{path}: this {complaint}")
    return _open_gzip(stream) if head.startswith(b"\x1f\x8b") else stream


def _texts(stream: IO[bytes]) -> Iterator[bytes]:
    """Cut a stream between lines, holding at most the first part of an over-long one."""
    rest = b""
    start = True
    while chunk := stream.read(_CHUNK_BYTES):
        if start:
            chunk, start = chunk.removeprefix(b"\xef\xbb\xbf"), False
        lines, found, tail = chunk.rpartition(b"\n")
        if found:
            yield rest + lines
            rest = tail
        elif len(rest) < MAX_LINE_BYTES:
            rest += tail  # an over-long line is cut here: it no longer parses, and is counted
    if rest:
        yield rest


def _amazon_blocks(category: str, template: str) -> Iterator[Block]:
    """Stream a category with the opener of ``datasets``: retries, token, nothing on disk.

    Not with its loaders: the JSON one infers a type a chunk and fails where a shop writes a
    price as a number here and as text there, and the text one decodes what comes over the
    network in the platform's encoding. Our own parser takes the bytes and does the rest.
    """
    from datasets.download.streaming_download_manager import xopen

    url = template.format(category=category)
    last = 0
    try:
        with xopen(url, "rb") as stream:
            for block in _blocks(stream, f"meta_{category}.jsonl"):
                last = block.first + len(block) - 1
                yield block
    except Exception as error:  # each of many libraries below has its own
        raise SourceInterrupted(
            f"amazon:{category}: cannot be streamed from {url} after line {last} "
            f"({type(error).__name__}: {str(error)[:200]}). Check the connection, or download "
            "the file and pass its path"
        ) from error
    if not last:
        raise SourceError(f"amazon:{category}: {url} is empty")
