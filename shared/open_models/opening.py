"""Opening a language model: the tiny one that is shipped, a folder, or one of the hub; in few bits.

Four bits is NF4 with double quantisation (Dettmers et al., 2023, "QLoRA"): 16 levels where normally
distributed weights are dense, and a scale for each block of 64 weights, itself in 8 bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.data.storage import file_hash
from shared.open_models.memory import compute_dtype
from shared.pretraining.making import TINY, BaseModelError, read_manifest

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

BITS = (4, 8, 16)
"""Bits a weight. 16 means not quantised; on a CPU these are then 32."""


@dataclass(frozen=True)
class Opened:
    """What was opened, for manifests: two with the same ``fingerprint`` have the same weights.

    ``base``: the name that was asked for. ``bits``: of a weight. ``dtype``: of computing, and why.
    """

    base: str
    fingerprint: str
    bits: int
    device: str
    dtype: str
    why: str


def open_model(
    base: str, bits: int = 4, *, device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Opened]:
    """Return a base model to be asked or tuned, its tokenizer, and what it is.

    ``base`` is "tiny", a folder, or a name of the hub. ``device``: "cuda" if there is one, else
    "cpu"; each process of ``accelerate launch`` has its own. Raises BaseModelError if there is no
    such model or its files were changed, ValueError for another number of bits.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if bits not in BITS:
        raise ValueError(f"{bits} bits a weight: choose one of {BITS}")
    device = device or _device()
    on_gpu = device.startswith("cuda")
    dtype, why = compute_dtype(torch.cuda.get_device_capability(device) if on_gpu else "cpu")
    name = str(TINY) if base == "tiny" else str(base)
    if (Path(name) / "manifest.json").exists() or base == "tiny":
        read_manifest(Path(name))  # one made here says what its files have to be
    try:
        with no_bar_for_a_blink(name):
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=getattr(torch, dtype), quantization_config=_quantised(bits, dtype),
                device_map={"": device},
            )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise BaseModelError(_advice(base, error)) from error
    _compute_as_trained(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    opened = Opened(base, fingerprint_of(base, model), bits, device, dtype, why)
    return model.eval(), tokenizer, opened


def _device() -> str:
    """Return the device of this process, of which ``accelerate launch`` starts several."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    own = os.environ.get("LOCAL_RANK")
    return "cuda" if own is None else f"cuda:{own}"


@contextlib.contextmanager
def no_bar_for_a_blink(name: str) -> Iterator[None]:
    """Show no progress of files that are read or written in a blink; a large model has its bar."""
    from transformers.utils import logging as bars

    size = sum(path.stat().st_size for path in Path(name).glob("*.safetensors"))
    if not 0 < size < 100_000_000 or not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()


@contextlib.contextmanager
def nothing_to_act_on() -> Iterator[None]:
    """Keep away warnings that no learner can act on.

    peft and TRL are told that they ask transformers by a name of last year; and that unpacking
    four bits gives 32, as was asked for, is told as a warning, too.
    """
    talker = logging.getLogger("transformers.integrations.bitsandbytes")
    level = talker.level
    talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*gradient_checkpointing.*", FutureWarning)
            yield
    finally:
        talker.setLevel(level)


def _compute_as_trained(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking four-bit weights for a CPU's own kernel when first asked.

    That kernel has no gradient: training that follows a first question goes wrong, silently, in
    all layers but the last. It rounds to 16 bits besides, so prices would depend on the CPU.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def fingerprint_of(base: str, model: PreTrainedModel | None = None) -> str:
    """Return what tells a base from others: a hash of its weights, or its commit on the hub."""
    folder = TINY if base == "tiny" else Path(base)
    files = sorted(folder.glob("*.safetensors"))
    if files:
        whole = "".join(f"{path.name}:{file_hash(path)}" for path in files)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]
    return str(getattr(getattr(model, "config", None), "_commit_hash", None) or base)


def about(opened: Opened) -> dict[str, Any]:
    """Return what was opened as JSON values."""
    return asdict(opened)


def _quantised(bits: int, dtype: str) -> BitsAndBytesConfig | None:
    import torch
    from transformers import BitsAndBytesConfig

    if bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )  # fmt: skip
    return BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else None


def _advice(base: str, error: Exception) -> str:
    """Say what a person can do about a model that did not open."""
    said = str(error)
    if "gated" in said.lower() or "401" in said or "403" in said:
        remedy = "accept its licence on its page, and log in with `hf auth login`"
    elif Path(base).exists():
        remedy = "the folder holds no whole model: fetch it anew"
    else:
        remedy = "a misspelt name, or no connection; `tiny` needs none"
    return f"{base}: cannot be opened ({said.splitlines()[0][:200] if said else error!r}); {remedy}"
