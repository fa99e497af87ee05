"""Classifiers to disk: as ONNX in 32 or eight bits, or an encoder as it was taught."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from shared.compression.exported import MANIFEST, MODEL, ExportError, read_exported, write_exported
from shared.compression.exported_text import TOKENIZER
from shared.compression.exporting import as_bytes, bag_graph
from shared.understanding.classifying import Classifier, own_encoder
from shared.understanding.encoder import Encoder, Recipe, encoder_graph
from shared.understanding.exported import ENCODER, HASHED, ORIGINAL, said_of
from shared.understanding.hashed import HashedClassifier

FP32_TOLERANCE = 1e-4
"""By how much a probability may differ from that of PyTorch, with 32 bits."""
INT8_TOLERANCE = 0.1
"""The same with eight bits; most differ by less than a hundredth."""

WEIGHTS = "model.safetensors"


def export_classifier(
    classifier: Classifier | HashedClassifier, folder: Path, precision: str = "int8"
) -> Path:
    """Write a classifier as a folder that ``open_classifier`` opens; return the folder.

    ``precision``: "fp32" gives the probabilities of PyTorch within ``FP32_TOLERANCE``, "int8"
    within ``INT8_TOLERANCE`` and in about a quarter of the size. Raises ValueError for an encoder
    of the hub: distil it into one that was made here.
    """
    facts = {
        "name": f"{classifier.name}, {precision}", "precision": precision,
        "categories": list(classifier.categories),
    }  # fmt: skip
    if isinstance(classifier, HashedClassifier):
        facts |= {"kind": HASHED, "reading": asdict(classifier.network.reading)}
        files = {MODEL: as_bytes(bag_graph(classifier.network), precision)}
        return write_exported(folder, files, facts)
    model = own_encoder(classifier)
    facts |= {"kind": ENCODER} | _read(classifier)
    files = {
        MODEL: as_bytes(encoder_graph(model), precision, ("Gather", "MatMul")),
        TOKENIZER: _tokenizer(classifier),
    }
    return write_exported(folder, files, facts)


def save_classifier(classifier: Classifier, folder: Path) -> Path:
    """Write an encoder as it is, in 32 bits for PyTorch, to a folder; return the folder.

    Raises ValueError for an encoder of the hub: it has a ``save_pretrained`` of its own.
    """
    from safetensors.torch import save

    weights = {
        name: tensor.contiguous() for name, tensor in own_encoder(classifier).state_dict().items()
    }
    facts = {
        "kind": ORIGINAL, "name": classifier.name, "categories": list(classifier.categories),
        "recipe": asdict(classifier.recipe), **_read(classifier),
    }  # fmt: skip
    return write_exported(
        folder, {WEIGHTS: save(weights), TOKENIZER: _tokenizer(classifier)}, facts
    )


def load_classifier(folder: Path, threads: int = 1) -> Classifier:
    """Open a folder that ``save_classifier`` wrote. Raises ExportError if it is not whole.

    It computes on one thread, whatever ``threads`` says: ``open_classifier`` gives it to all kinds.
    """
    from safetensors.torch import load
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    manifest, files = read_exported(folder, ORIGINAL)
    name, categories = said_of(manifest, folder)
    try:
        weights, recipe = load(files[WEIGHTS]), Recipe(**manifest["recipe"])
        words = weights["words.weight"]
        model = Encoder(recipe, len(words), len(manifest["categories"]))
        model.load_state_dict(weights)
        tokens = Tokenizer.from_str(files[TOKENIZER].decode())
        pad = tokens.id_to_token(manifest["pad"])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token=pad)
    except Exception as error:  # the tokenizer's errors have no class of their own
        raise ExportError(f"{Path(folder) / MANIFEST}: damaged ({error!r})") from error
    return Classifier(model.eval(), tokenizer, categories, recipe, name)


def _tokenizer(classifier: Classifier) -> bytes:
    return classifier.tokenizer.backend_tokenizer.to_str().encode()


def _read(classifier: Classifier) -> dict[str, int]:
    return {"tokens": classifier.recipe.tokens, "pad": classifier.tokenizer.pad_token_id}
