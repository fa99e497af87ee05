"""Adapters on disk: opened beside the very weights they were trained beside, merged, shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.data.storage import file_hash, write_json
from shared.open_models.opening import (
    about,
    no_bar_for_a_blink,
    nothing_to_act_on,
    open_model,
)
from shared.pretraining.making import TINY

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"

TUNED = Path(__file__).with_name("tuned")
"""The tiny base's adapter that is shipped: `python -m shared tune` on the embedded data."""


class AdapterError(RuntimeError):
    """An adapter that cannot be opened or sent; the message says why, and what to do."""


def in_32_bits(model: PeftModel) -> PeftModel:
    """Make the trainable weights 32 bits. TRL makes those of a quantised base 16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def add_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put the adapter of a folder beside the weights of its base."""
    from peft import PeftModel

    with nothing_to_act_on():
        return in_32_bits(PeftModel.from_pretrained(model, str(folder))).eval()


def fused(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return a base in 4 or 16 bits and its adapter as one model of full precision, to be asked.

    It has the weights the adapter was trained beside, four-bit ones unpacked once instead of at
    each question: the same prices in half the time, for the memory that quantising had saved.
    """
    if getattr(model, "is_loaded_in_4bit", False):
        with nothing_to_act_on():
            model = model.dequantize()
    return add_adapter(model, folder).merge_and_unload().eval()


def read_tuned(folder: Path) -> dict[str, Any]:
    """Return the manifest of a tuned model, after comparing its files with what that says."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = [(name, manifest["sha256"][name]) for name in (ADAPTER, CONFIG)]
        manifest["plan"]["base"], manifest["base"]["fingerprint"]
    except FileNotFoundError:
        raise AdapterError(
            f"{folder}: holds no tuned model ({MANIFEST} is missing); make it with: "
            f"python -m shared tune --train DIR --out {folder}"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{folder / MANIFEST} is damaged ({error!r}): tune again") from error
    for name, wanted in files:
        if not (folder / name).is_file() or file_hash(folder / name) != wanted:
            raise AdapterError(f"{folder / name} is missing or was changed: tune again")
    return manifest


def merge(folder: Path, out: Path) -> Path:
    """Write base and adapter as one model of full precision to ``out``: it needs no peft then.

    The adapter was trained beside four-bit weights and is added to the exact ones: prices differ
    a little from those of the two apart. Measure before you ship it.
    """
    manifest = read_tuned(folder)
    model, tokenizer, opened = open_model(manifest["plan"]["base"], 16)
    merged = add_adapter(model, folder).merge_and_unload()
    out = Path(out)
    with no_bar_for_a_blink(str(TINY if opened.base == "tiny" else opened.base)):
        merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    files = sorted(path for path in out.iterdir() if path.is_file())
    write_json(
        {
            "merged_from": manifest["sha256"][ADAPTER], "base": about(opened),
            "sha256": {path.name: file_hash(path) for path in files if path.name != MANIFEST},
        },
        out / MANIFEST,
    )  # fmt: skip
    return out


def push(folder: Path, repository: str) -> str:
    """Upload the adapter of a folder to a private repository of the hub; return its address.

    Only the adapter, its settings and its manifest are sent. Raises AdapterError if the hub
    refuses, without a token (`hf auth login`) for instance.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    read_tuned(folder)
    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=str(folder), allow_patterns=[ADAPTER, CONFIG, MANIFEST],
            commit_message="Adapter of the price course",
        )  # fmt: skip
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise AdapterError(
            f"{repository}: the hub did not take it ({str(error).splitlines()[0][:200]}); "
            f"log in with `hf auth login`, and write OWNER/NAME. The adapter is in {folder}"
        ) from error
    return str(address)
