"""What a model takes in memory, computed before anything is loaded, and what makes it fit.

Weights, adapters, gradients and optimizer states are counted; what the backward pass keeps is
estimated by the formula in ``MemoryPlan``, which tests compare with what torch allocates.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from shared.pretraining.base_model import Recipe

GIB = OVERHEAD = 2**30
"""Bytes, assumed: half for the CUDA context and libraries, half for what the allocator wastes."""
LOGIT_BYTES = 12
"""For each logit, in 32 bits: its log probability, that one's gradient, its own gradient."""
OPTIMIZERS = {"adamw_torch": 0, "adamw_32bit": 32, "paged_adamw_32bit": 32, "adamw_8bit": 8,
              "paged_adamw_8bit": 8}  # fmt: skip
"""Bits of each of the two moments that AdamW keeps; 0: as many as the adapters have."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder of Llama's kind, also with ``qk_norm`` (Qwen3).

    ``kv_heads``: of keys and values, each shared by several of the ``heads``. ``inner``: the width
    inside the feed-forward part. ``tied``: the output uses the embeddings again.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    vocabulary: int
    tied: bool
    qk_norm: bool = False

    def __post_init__(self) -> None:
        flags = ("name", "tied", "qk_norm")
        _at_least_1(**{name: size for name, size in vars(self).items() if name not in flags})

    @classmethod
    def of(cls, config: Any, name: str = "") -> Shape:
        """Return the shape of a transformers config. ValueError for another kind of model."""
        c, kind = config, config.model_type
        biases = [name for name in ("attention_bias", "mlp_bias") if getattr(c, name, False)]
        _one_of("model type", " ".join([kind, *biases]), ("llama", "mistral", "qwen3"))
        size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        return cls(name or c.name_or_path or kind, c.num_hidden_layers, c.hidden_size,
                   c.num_attention_heads, c.num_key_value_heads, size, c.intermediate_size,
                   c.vocab_size, c.tie_word_embeddings, qk_norm=kind == "qwen3")  # fmt: skip

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """The matrices of one layer: name -> (outputs, inputs), as torch stores them."""
        h, q, kv = self.hidden, self.heads * self.head_size, self.kv_heads * self.head_size
        return {"q": (q, h), "k": (kv, h), "v": (kv, h), "o": (h, q), "gate": (self.inner, h),
                "up": (self.inner, h), "down": (h, self.inner)}  # fmt: skip

    @property
    def parts(self) -> dict[str, int]:
        """Parameters by part; ``output`` has none of its own where the embeddings are ``tied``."""
        sizes = [rows * columns for rows, columns in self.matrices.values()]
        norms = 2 * (self.hidden + self.head_size * self.qk_norm)
        words, layers = self.vocabulary * self.hidden, self.layers
        return {"embeddings": words, "attention": layers * sum(sizes[:4]),
                "feed-forward": layers * sum(sizes[4:]), "norms": layers * norms + self.hidden,
                "output": 0 if self.tied else words}  # fmt: skip

    @property
    def parameters(self) -> int:
        """All parameters, as ``sum(p.numel() for p in model.parameters())`` counts them."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Device:
    """A card: the memory torch finds on it in GiB, and its compute capability."""

    name: str
    gib: float
    capability: tuple[int, int]


def compute_dtype(device: Device | tuple[int, int] | str) -> tuple[str, str]:
    """Return torch's name of the format to compute in, and why; "cuda" is this machine's card."""
    if device == "cpu":
        return "float32", "most CPUs compute 16-bit numbers far more slowly than 32-bit ones"
    if str(device).startswith("cuda"):
        import torch

        device = torch.cuda.get_device_capability(device)
    if (device if isinstance(device, tuple) else _named(device, DEVICES).capability) >= (8, 0):
        return "bfloat16", "it has the range of float32, so no loss is scaled"
    return "float16", "bfloat16 needs compute capability 8.0; here the loss must be scaled"


def weight_bytes(
    shape: Shape | str, bits: int = 4, *, double_quantisation: bool = True, rest_bits: int = 16
) -> int:
    """Return the bytes of a model's weights, as bitsandbytes holds them.

    Matrices of layers have ``bits``: 4 (NF4: a block of 64 has a constant of 32 bits, or, with
    double quantisation, of 8, and 256 of those one of 32; Dettmers et al., 2023, QLoRA), 8
    (LLM.int8: a row has a constant of 32 bits), 16 or 32. All else keeps ``rest_bits``.
    """
    shape, total = _named(shape, SHAPES), 0
    for rows, columns in shape.matrices.values():
        weights = rows * columns
        blocks = -(-weights // 64)
        total += weights * _one_of("bits", bits, (4, 8, 16, 32)) // 8
        if bits == 8:
            total += 4 * rows
        elif bits == 4:  # every matrix carries its code book, or both of them
            nested = blocks + 4 * -(-blocks // 256) + 4 * 256 + 4
            total += 4 * 16 + (nested if double_quantisation else 4 * blocks)
    rest = shape.parts["embeddings"] + shape.parts["norms"] + shape.parts["output"]
    return shape.layers * total + rest * _one_of("rest_bits", rest_bits, (16, 32)) // 8


def adapter_parameters(shape: Shape | str, rank: int, targets: str = "all-linear") -> int:
    """Return the parameters of LoRA adapters, of four bytes each in 32 bits.

    A is (rank, inputs), B is (outputs, rank), for each matrix in ``targets``: "q,k,v,o" or
    "all-linear", which are all but the output layer, as in peft.
    """
    _at_least_1(rank=rank)
    adapted = _adapted(_named(shape, SHAPES), targets).values()
    return _named(shape, SHAPES).layers * rank * sum(rows + columns for rows, columns in adapted)


def _adapted(shape: Shape, targets: str) -> dict[str, tuple[int, int]]:
    known = shape.matrices
    named = known if targets == "all-linear" else targets.replace("_proj", "").split(",")
    return {name.strip(): known[_one_of("targets", name.strip(), known)] for name in named}


@dataclass(frozen=True)
class MemoryPlan:
    """What QLoRA training takes on one card at its peak, in bytes, by part.

    ``batch`` examples of ``length`` tokens, padding included; ``labelled_tokens`` of each reach
    the output layer (None: all). ``adapter_bits``: 16 where trl casts them. ``compute_bits``: 32
    on a CPU.

    **Activations are an estimate**, without dropout, for attention that stores no scores (SDPA,
    Flash). With c = compute_bits / 8 a layer keeps 8·hidden bytes for each token, and c times:
    2·hidden, q, k, v, what attention returns, 4·inner, the rank of each adapter; less with fewer
    targets. With ``checkpointing`` it keeps c·hidden, and one layer at a time is computed anew.
    At the peak come on top the logits, 12 bytes each, or, if that is more, the backward pass of a
    layer: 2·c·inner a token, and its largest matrix unpacked.
    """

    shape: Shape
    batch: int
    length: int
    bits: int = 4
    rank: int = 32
    targets: str = "all-linear"
    checkpointing: bool = True
    optimizer: str = "paged_adamw_8bit"
    labelled_tokens: int | None = None
    adapter_bits: int = 32
    compute_bits: int = 16

    def __post_init__(self) -> None:
        labelled = 1 if self.labelled_tokens is None else self.labelled_tokens
        _at_least_1(batch=self.batch, length=self.length, labelled_tokens=labelled)
        _one_of("adapter_bits", self.adapter_bits, (16, 32))
        _ = self.parts  # the other settings are checked where they are used

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part; ``activations`` is the estimate, ``overhead`` an assumption."""
        trained = adapter_parameters(self.shape, self.rank, self.targets)
        moment = OPTIMIZERS[_one_of("optimizer", self.optimizer, OPTIMIZERS)] or self.adapter_bits
        labelled = self.batch * min(self.labelled_tokens or self.length, self.length)
        logits = labelled * self.shape.vocabulary * LOGIT_BYTES
        kept, work = self._activations()
        return {
            "weights": weight_bytes(self.shape, self.bits, rest_bits=self.compute_bits),
            "adapters": trained * self.adapter_bits // 8,
            "gradients": trained * self.adapter_bits // 8,
            "optimizer": 2 * (trained * moment // 8 + (moment == 8) * trained // 64),  # 4 B per 256
            "activations": kept + max(work - logits, 0),
            "logits": logits,
            "overhead": OVERHEAD,
        }

    def _activations(self) -> tuple[int, int]:
        """Return what is kept until the backward pass, and what one layer needs in it."""
        shape, c, tokens = self.shape, self.compute_bits // 8, self.batch * self.length
        adapted = set(_adapted(shape, self.targets))
        norms = bool(adapted & set("qkv")) + bool(adapted & {"gate", "up"})
        numbers = norms * shape.hidden + 2 * (shape.heads + shape.kv_heads) * shape.head_size
        numbers += (3 + ("down" in adapted)) * shape.inner + self.rank * len(adapted)
        layer = tokens * (8 * shape.hidden + c * numbers)
        unpacked = max(rows * columns for rows, columns in shape.matrices.values())
        work = c * (tokens * 2 * shape.inner + (unpacked if self.bits < 16 else 0))
        each, anew = (tokens * c * shape.hidden, layer) if self.checkpointing else (layer, 0)
        return tokens * (4 + c) * shape.hidden + shape.layers * each, work + anew

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def spare(self, device: Device | str) -> int:
        """Return the bytes that a card (or its name in ``DEVICES``) has left; below 0: lacks."""
        return int(_named(device, DEVICES).gib * GIB) - self.total

    def fits(self, device: Device | str) -> bool:
        """Return whether all of it fits on a card."""
        return self.spare(device) >= 0

    def largest(self, field: str, device: Device | str, most: int = 4096) -> int:
        """Return the largest ``batch`` or ``length`` up to ``most`` that fits; 0: not even 1."""
        tried = range(1, most + 1)
        return bisect_left(tried, 1, key=lambda n: not replace(self, **{field: n}).fits(device))

    def advice(self, device: Device | str) -> list[str]:
        """Return whether it fits on a card, and what each change would do, a line each."""
        cheap = {"checkpointing": True, "optimizer": "paged_adamw_8bit", "bits": 4,
                 "labelled_tokens": self.labelled_tokens or 8}  # fmt: skip
        changes = [{}, *({name: new} for name, new in cheap.items() if getattr(self, name) != new)]
        changes += [{field: self.largest(field, device)} for field in ("batch", "length")]
        changes.append(cheap | {"batch": replace(self, **cheap).largest("batch", device)})
        lines = []
        for change in (one for one in changes if 0 not in one.values()):
            made, other = (f"{k}={v}" for k, v in change.items()), replace(self, **change)
            spare = other.spare(device) / GIB
            verdict = "fits" if spare >= 0 else f"{-spare:.1f} GiB too much"
            lines.append(f"{' '.join(made) or 'as it is'}: {other.total / GIB:.1f} GiB, {verdict}")
        hopeless = ["nothing makes it fit: take a smaller model, or a larger card"]
        return lines if changes[-1]["batch"] else lines + hopeless

    def __str__(self) -> str:
        notes = {"activations": " (an estimate)", "overhead": " (assumed)"}
        rows = {**self.parts, "total": self.total}.items()
        return "\n".join(f"{n:12}{size / GIB:8.2f} GiB{notes.get(n, '')}" for n, size in rows)


def plan(shape: Shape | str, **settings: Any) -> MemoryPlan:
    """Return the plan for a shape or its name in ``SHAPES``; ``settings``: ``MemoryPlan``'s."""
    return MemoryPlan(_named(shape, SHAPES), **settings)


def table(shapes: Iterable = (), devices: Iterable = (), **settings: Any) -> str:
    """Return shapes × cards (all, if none are named): GiB that ``plan`` needs, leaves or lacks."""
    cards = [_named(device, DEVICES) for device in devices or DEVICES]
    lines = [f"{'GiB':14}{'needs':>6}" + "".join(f"{card.name:>13}" for card in cards)]
    for one in (plan(shape, **settings) for shape in shapes or SHAPES):
        spare = (one.spare(card) / GIB for card in cards)
        cells = (f"{abs(s):7.1f} {'free ' if s >= 0 else 'short'}" for s in spare)
        lines.append(f"{one.shape.name:14}{one.total / GIB:6.1f}{''.join(cells)}".rstrip())
    return "\n".join(lines)


def _named(value: Any, known: dict[str, Any]) -> Any:
    return known[_one_of("name", value, known)] if isinstance(value, str) else value


def _one_of(what: str, value: Any, known: Iterable) -> Any:
    if value not in known:
        raise ValueError(f"{what}: {value!r} is none of {', '.join(map(str, known))}")
    return value


def _at_least_1(**values: int) -> None:
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}: {value!r} is no whole number of at least 1")


_R = Recipe()
SHAPES = {shape.name: shape for shape in (
    Shape("tiny", _R.layers, _R.hidden, _R.heads, _R.heads // 2, _R.hidden // _R.heads, _R.inner,
          _R.vocabulary, True),
    Shape("Qwen3 0.6B", 28, 1024, 16, 8, 128, 3072, 151_936, True, True),
    Shape("Llama 3.2 1B", 16, 2048, 32, 8, 64, 8192, 128_256, True),
    Shape("Qwen3 1.7B", 28, 2048, 16, 8, 128, 6144, 151_936, True, True),
    Shape("Llama 3.2 3B", 28, 3072, 24, 8, 128, 8192, 128_256, True),
    Shape("Qwen3 4B", 36, 2560, 32, 8, 128, 9728, 151_936, True, True),
    Shape("Llama 3.1 8B", 32, 4096, 32, 8, 128, 14_336, 128_256, False),
    Shape("Qwen3 8B", 36, 4096, 32, 8, 128, 12_288, 151_936, False, True),
)}  # fmt: skip
"""Our tiny base, and models people fine-tune. Source: each model's config.json on the Hub."""

DEVICES = {card.name: card for card in (
    Device("T4", 14.5, (7, 5)), Device("L4", 22.0, (8, 9)), Device("A100 40", 39.4, (8, 0)),
    Device("A100 80", 79.1, (8, 0)), Device("H100 80", 79.1, (9, 0)),
)}  # fmt: skip
"""Less than on the box: 16 GB are 14.9 GiB, some kept back. Source: torch's error messages."""
