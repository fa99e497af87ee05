"""Make a tiny base model, or open one: corpus, tokenizer, training, manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tqdm.auto import tqdm

from shared.data.storage import file_hash, fingerprint, replacing, versions, write_json
from shared.pipeline import course_items
from shared.pretraining.base_model import Pretraining, Recipe, median_error
from shared.pretraining.corpus import SEED, documents, other_products
from shared.pretraining.tokenizer import train_tokenizer
from shared.settings import Settings

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

TINY = Path(__file__).with_name("tiny")
"""The one that is shipped."""

HELD_OUT = 50
"""One document of so many is not read, to see how well the model guesses the price after it."""

TOKENIZER_TEXTS = 15_000
SAVED_EVERY = 200
"""Steps between two checkpoints: what a killed process has to do again at most."""


class BaseModelError(RuntimeError):
    """A base model that cannot be opened; the message says why, and what to do."""


def make_base(out: Path, recipe: Recipe | None = None, *, progress: bool = True) -> dict[str, Any]:
    """Make a base model in the folder ``out`` and return its manifest.

    A finished one of the same recipe is left as it is; one that was interrupted goes on behind its
    last checkpoint, and is the same in the end. The manifest is written last.
    """
    recipe, out = recipe or Recipe(), Path(out)
    manifest_path, work = out / "manifest.json", out / ".work"
    if manifest_path.exists():
        found = json.loads(manifest_path.read_text(encoding="utf-8"))
        if found["recipe"] == asdict(recipe):
            return found
        manifest_path.unlink()  # what follows is another model
    start = time.perf_counter()
    held, folder = evaluation_items(), work / "other"
    items = other_products(recipe.records, folder, held, progress=progress)
    read = list(documents(items))
    held_out, read = read[::HELD_OUT], [d for at, d in enumerate(read) if at % HELD_OUT]
    tokenizer = train_tokenizer(items["text"].to_pylist()[:TOKENIZER_TEXTS], recipe.vocabulary)
    training = Pretraining(recipe, read, tokenizer)
    seconds = _train(training, work / f"checkpoint-{_digest(recipe)}.pt", progress)
    training.model.eval()
    training.model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    curve = [list(map(_mean, zip(*part, strict=True))) for part in _parts(training.losses, 100)]
    manifest = {
        "recipe": asdict(recipe),
        "corpus": {
            "seed": SEED, "items": fingerprint(items), "documents": len(read),
            "documents_read": recipe.steps * recipe.batch,
        },
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "held_out_dollars": round(median_error(training.model, held_out, tokenizer), 2),
        "held_out_documents": sum(price is not None for _, price in held_out),
        "loss_of_words_and_prices_every_100_steps": curve,
        "seconds": round(time.perf_counter() - start),
        "seconds_of_training": round(seconds),
        "sha256": {path.name: file_hash(path) for path in _files(out)},
        "versions": versions(),
    }  # fmt: skip
    write_json(manifest, manifest_path)
    shutil.rmtree(work)
    return manifest


def open_base(folder: Path = TINY) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return a base model that was made here, in 32 bits, and its tokenizer.

    Raises BaseModelError if there is none, or if a file is not the one that was made.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM

    read_manifest(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype="float32")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return how a base model was made, after comparing its files with what that says."""
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise BaseModelError(f"{path} is missing: make the model with `python -m shared base`")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for name, wanted in manifest["sha256"].items():
        file = Path(folder) / name
        if not file.exists() or file_hash(file) != wanted:
            raise BaseModelError(f"{file} is missing or was changed: fetch it anew, or make it")
    return manifest


def evaluation_items() -> pa.Table:
    """Return what the course evaluates on: validation and test items of the embedded catalogue."""
    items = course_items(Settings.from_environment({}), progress=False)
    return pa.concat_tables([items.table("validation"), items.table("test")])


def _train(training: Pretraining, checkpoint: Path, progress: bool) -> float:
    """Do the steps that are left; return the seconds they took."""
    import torch

    if checkpoint.exists():
        training.restore(torch.load(checkpoint, weights_only=True))
    total, start = training.recipe.steps, time.perf_counter()
    with tqdm(
        total=total, initial=len(training.losses), desc="pretrain", unit="step",
        disable=not progress,
    ) as bar:  # fmt: skip
        while len(training.losses) < total:
            words, prices = training.step()
            bar.set_postfix_str(f"words {words:.2f}, prices {prices:.2f}", refresh=False)
            bar.update()
            if len(training.losses) % SAVED_EVERY == 0:
                with replacing(checkpoint) as temporary:
                    torch.save(training.state(), temporary)
    return time.perf_counter() - start


def _digest(recipe: Recipe) -> str:
    return hashlib.sha256(json.dumps(asdict(recipe)).encode()).hexdigest()[:12]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name != "manifest.json")


def _parts(values: list, size: int) -> list[list]:
    return [values[at : at + size] for at in range(0, len(values), size)]


def _mean(values: tuple[float, ...]) -> float:
    return round(sum(values) / len(values), 4)
