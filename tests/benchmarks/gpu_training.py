"""What QLoRA training of a model of eight billion weights costs on a GPU, and which switch helps.

    python tests/benchmarks/gpu_training.py --write      # on a GPU: 24 GiB or more, some minutes
    python tests/benchmarks/gpu_training.py --dry        # all of it in small, on any CPU

The model has the shape of Llama 3.1 8B and random weights: they change no speed, and nothing is
downloaded. It is made matrix by matrix, each quantised (NF4, double quantisation) before the next,
so the GPU never holds more than one in full. Llama's scaling of long positions is left out.

The plain recipe is the one that is copied everywhere: batches of 16 padded to 182 tokens, bf16,
rank 32 on q, k, v, o, paged 32-bit AdamW, logits at all positions, no gradient checkpointing. Each
switch is measured alone on top of it, then all together, then without each; on the same items.
Their lengths are drawn (seed 42): normal, mean 118 (65 % of 182), deviation 35, cut to 24-182; the
last two tokens, price and end, have labels. Tokens per second count real tokens, not padding.

Memory is the peak of torch's own count, plus the paged states of the optimizer, which it does not
see. ``--write`` stores the rows in tests/benchmarks/results/gpu_training.json, each as it comes.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from shared.data.storage import versions, write_json
from shared.open_models.adapters import ADAPTER
from shared.open_models.memory import GIB, OVERHEAD, SHAPES, MemoryPlan, Shape, adapter_parameters
from shared.open_models.reading import read_prices
from shared.prompts import PRICE_IS
from shared.training.building import with_adapters
from shared.training.fine_tuning import Plan
from shared.training.trainer import IGNORED

RESULTS = Path(__file__).parent / "results" / "gpu_training.json"
SEED, LENGTH, LABELS, RANK, TARGETS = 42, 182, 2, 32, "q_proj,k_proj,v_proj,o_proj"
SMALL = Shape("small", 2, 64, 4, 2, 16, 128, 2_100, False)
"""For ``--dry``."""
LIBRARIES = (
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "liger-kernel",
    "flash-attn",
)
"""Besides those that ``versions`` names."""
FIRST_PRICE = 1_000
"""The token of 0 dollars; 0 to 999 are one token each, as in Llama 3."""


@dataclass(frozen=True)
class Recipe:
    """How a step is computed.

    ``padding``: "full" (to 182), "longest" (of the batch), "sorted" (batches of similar lengths),
    "packed" (none: one row in which every item sees itself only). ``head``: logits at "all"
    positions or where "labels" are. ``checkpointing``: of no, "half" or "all" layers.
    """

    name: str
    batch: int = 16
    padding: str = "full"
    head: str = "all"
    optimizer: str = "paged_adamw_32bit"
    checkpointing: str = "none"
    liger: bool = False
    attention: str = "sdpa"


PLAIN = Recipe("plain")
OURS = Recipe("ours", padding="packed", head="labels", optimizer="paged_adamw_8bit")
USED = replace(OURS, name="as fine_tune does it", padding="longest", checkpointing="all")
SWITCHES: tuple[dict[str, Any], ...] = (
    {"padding": "longest"}, {"padding": "sorted"}, {"padding": "packed"}, {"head": "labels"},
    {"optimizer": "paged_adamw_8bit"}, {"checkpointing": "half"}, {"checkpointing": "all"},
)  # fmt: skip


def recipes() -> list[Recipe]:
    """All that is measured. What patches the model for good (Liger) comes last."""
    alone = [replace(PLAIN, name=f"plain, {_said(switch)}", **switch) for switch in SWITCHES]
    without = [
        replace(OURS, name=f"ours, but {_said({key: getattr(PLAIN, key)})}", **{key: value})
        for key, value in asdict(PLAIN).items()
        if key in ("padding", "head", "optimizer")
    ]
    more: list[dict[str, Any]] = [
        {"checkpointing": "half"}, {"checkpointing": "all"}, {"batch": 32}, {"batch": 64},
        {"batch": 64, "checkpointing": "all"}, {"padding": "sorted"},
        {"attention": "flash_attention_2"},
    ]  # fmt: skip
    together = [replace(OURS, name=f"ours, {_said(switch)}", **switch) for switch in more]
    liger = [
        replace(PLAIN, name="plain, liger", liger=True),
        replace(OURS, name="ours, liger", liger=True),
        replace(OURS, name="ours, half, liger", checkpointing="half", liger=True),
        replace(OURS, name="ours, all, liger", checkpointing="all", liger=True),
    ]
    return [PLAIN, OURS, USED, *alone, *without, *together, *liger]


def _said(switch: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in switch.items())


# The model


def quantised_model(shape: Shape, device: str) -> Any:
    """Return a Llama of a shape with random weights in four bits, with new adapters."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, head_dim=shape.head_size,
        tie_word_embeddings=shape.tied, max_position_embeddings=8_192, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    torch.manual_seed(SEED)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _in_four_bits(module, dtype, device))
    for name, weight in list(model.named_parameters()):
        if weight.is_meta:
            filled = torch.empty(weight.shape, dtype=dtype, device=device)
            filled = filled.fill_(1) if "norm" in name else filled.normal_(0, 0.02)
            parent, _, own = name.rpartition(".")
            parameter = torch.nn.Parameter(filled, requires_grad=False)
            setattr(model.get_submodule(parent), own, parameter)
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    model.is_loaded_in_4bit = True  # which peft asks
    plan = Plan(rank=RANK, alpha=2 * RANK, targets=TARGETS, seed=SEED)
    return with_adapters(model, plan)


def _in_four_bits(linear: torch.nn.Linear, dtype: torch.dtype, device: str) -> torch.nn.Module:
    import bitsandbytes as bnb

    rows, columns = linear.weight.shape
    made = bnb.nn.Linear4bit(
        columns, rows, bias=False, compute_dtype=dtype, compress_statistics=True,
        quant_type="nf4", device="meta",
    )  # fmt: skip
    made.weight = bnb.nn.Params4bit(
        torch.empty(rows, columns, dtype=dtype, device=device).normal_(0, 0.02),
        requires_grad=False, compress_statistics=True, quant_type="nf4", module=made,
    ).to(device)  # fmt: skip
    made.support_avx512bf16_for_cpu = False  # that kernel has no gradient (see opening.py)
    return made


# The items


def items(count: int, vocabulary: int, longest: int = LENGTH) -> list[torch.Tensor]:
    """Return the token ids of so many items; lengths as the module's docstring says."""
    draw = np.random.default_rng(SEED)
    lengths = draw.normal(0.65 * longest, 0.19 * longest, count).round().astype(int)
    lengths = lengths.clip(round(0.13 * longest), longest)
    return [torch.from_numpy(draw.integers(1, vocabulary, length)) for length in lengths]


def batches(rows: list[torch.Tensor], recipe: Recipe, longest: int) -> list[dict[str, Any]]:
    """Return the steps of a recipe: the same items for each recipe, whatever it makes of them."""
    if recipe.padding == "sorted":
        rows = sorted(rows, key=len)
    found = []
    for start in range(0, len(rows), recipe.batch):
        chosen = rows[start : start + recipe.batch]
        made = _packed(chosen) if recipe.padding == "packed" else _padded(chosen, recipe, longest)
        found.append(made | {"real": sum(map(len, chosen))})
    if recipe.padding == "sorted":  # training draws them in any order, too
        found = [found[at] for at in np.random.default_rng(SEED).permutation(len(found))]
    return found


def _padded(rows: list[torch.Tensor], recipe: Recipe, longest: int) -> dict[str, Any]:
    width = longest if recipe.padding == "full" else max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for at, row in enumerate(rows):  # on the left, so that all labels lie at the end
        ids[at, width - len(row) :], mask[at, width - len(row) :] = row, 1
        labels[at, -LABELS:] = row[-LABELS:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _packed(rows: list[torch.Tensor]) -> dict[str, Any]:
    labels = [torch.full_like(row, IGNORED) for row in rows]
    for row, label in zip(rows, labels, strict=True):
        label[-LABELS:] = row[-LABELS:]
    return {
        "input_ids": torch.cat(rows)[None],
        # Where they begin anew, another item begins: transformers and its kernels see that.
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None],
        "labels": torch.cat(labels)[None],
    }


def loss_of(model: Any, batch: dict[str, Any], head: str) -> torch.Tensor:
    """Return the mean loss of a batch's labels."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "real")}
    labels = batch["labels"]
    if head == "all":
        return model(**inputs, labels=labels, use_cache=False).loss
    places = (labels != IGNORED).any(0).nonzero()[:, 0]
    logits = model(**inputs, use_cache=False, logits_to_keep=places - 1).logits.float()
    wanted = labels[:, places]
    return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)


# Training


def train(model: Any, recipe: Recipe, rows: list[torch.Tensor], shape: Shape, longest: int) -> dict:
    """Return speed and memory of a recipe: its largest step twice as warm-up, then all."""
    device, on_gpu = model.device, model.device.type == "cuda"
    prepare(model, recipe)
    steps = [
        {name: v.to(device) if torch.is_tensor(v) else v for name, v in batch.items()}
        for batch in batches(rows, recipe, longest)
    ]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = make_optimizer(recipe.optimizer, weights, on_gpu)
    seconds, losses = [], []
    largest = max(steps, key=lambda batch: batch["input_ids"].numel())
    for at, batch in enumerate([largest, largest, *steps]):
        if at == 2 and on_gpu:
            torch.cuda.reset_peak_memory_stats()
        start = _now(on_gpu)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = loss_of(model, batch, recipe.head)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        seconds.append(_now(on_gpu) - start)
    states = [s for state in optimizer.state.values() for s in state.values() if torch.is_tensor(s)]
    paged = sum(s.nbytes for s in states if getattr(s, "is_paged", False))
    peak = (torch.cuda.max_memory_allocated() if on_gpu else 0) + paged
    predicted = prediction(shape, recipe, steps, on_gpu)
    real = sum(batch["real"] for batch in steps)
    spent = seconds[2:]
    if not all(torch.isfinite(loss) for loss in losses):
        raise FloatingPointError("a loss is not finite")
    return {
        "optimizer_used": type(optimizer).__name__,
        "steps": len(steps),
        "real_tokens": real,
        "computed_tokens": sum(batch["input_ids"].numel() for batch in steps),
        "tokens_per_second": round(real / sum(spent), 1),
        "median_tokens_per_second": round(
            statistics.median(b["real"] / s for b, s in zip(steps, spent, strict=True)), 1
        ),
        "median_step_seconds": round(statistics.median(spent), 4),
        "peak_gib": round(peak / GIB, 3),
        "paged_gib": round(paged / GIB, 3),
        "predicted_gib": round(predicted / GIB, 3),
        "measured_to_predicted": round(peak / predicted, 3) if on_gpu else None,
    }


def _now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


def prepare(model: Any, recipe: Recipe) -> None:
    """Set what is set on the model. Raises ImportError for a kernel that is not installed."""
    llama = model.get_base_model()
    if recipe.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        raise ImportError("flash-attn is not installed")
    if recipe.liger:
        if find_spec("liger_kernel") is None:
            raise ImportError("liger-kernel is not installed")
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama(
            cross_entropy=False, fused_linear_cross_entropy=False, model=llama
        )
    llama.set_attn_implementation(recipe.attention)
    if recipe.checkpointing == "none":
        llama.gradient_checkpointing_disable()
    else:
        llama.gradient_checkpointing_enable({"use_reentrant": False})
        for at, layer in enumerate(llama.model.layers):
            layer.gradient_checkpointing = recipe.checkpointing == "all" or at % 2 == 0
    model.train()


def make_optimizer(name: str, weights: list, on_gpu: bool) -> torch.optim.Optimizer:
    """Return bitsandbytes' paged AdamW; on a CPU, which has no pages, torch's."""
    if not on_gpu:
        return torch.optim.AdamW(weights, lr=1e-4)
    import bitsandbytes as bnb

    kind = bnb.optim.PagedAdamW8bit if name.endswith("8bit") else bnb.optim.PagedAdamW32bit
    return kind(weights, lr=1e-4)


def prediction(shape: Shape, recipe: Recipe, steps: list[dict], on_gpu: bool) -> float:
    """Return the bytes that open_models.memory says, without the overhead torch cannot see."""
    rows, width = max((batch["input_ids"].shape for batch in steps), key=lambda s: s[0] * s[1])
    labelled = LABELS * (recipe.batch if recipe.padding == "packed" else 1)

    def total(checkpointing: bool) -> int:
        return MemoryPlan(
            shape, batch=rows, length=width, rank=RANK, targets=TARGETS,
            checkpointing=checkpointing, optimizer=recipe.optimizer,
            labelled_tokens=labelled if recipe.head == "labels" else None,
            compute_bits=16 if on_gpu else 32,
        ).total - OVERHEAD  # fmt: skip

    half = recipe.checkpointing == "half"
    return (total(True) + total(False)) / 2 if half else total(recipe.checkpointing == "all")


# Adapter and read-out


def adapter_size(model: Any, shape: Shape) -> dict[str, Any]:
    """Return the bytes of the adapter as computed, and as written to a file."""
    computed = 4 * adapter_parameters(shape, RANK, TARGETS)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        written = (Path(folder) / ADAPTER).stat().st_size
    return {
        "computed_mb": round(computed / 1e6, 3),
        "written_mb": round(written / 1e6, 3),
        "header_bytes": written - computed,
    }


class Numbers:
    """Stands for a tokenizer: a text is token ids with spaces, a price is one token."""

    eos_token_id = pad_token_id = 0

    def __call__(self, text: Any, **more: Any) -> Any:
        rows = [text] if isinstance(text, str) else text
        found = [self._ids(row) for row in rows]
        return argparse.Namespace(input_ids=found[0] if isinstance(text, str) else found)

    @staticmethod
    def _ids(text: str) -> list[int]:
        if text.startswith(PRICE_IS):
            rest = text[len(PRICE_IS) :]
            return [1, *([FIRST_PRICE + int(rest)] if rest else [])]
        return [int(word) for word in text.split()]


def batched_prices(model: Any, rows: list[torch.Tensor], batch: int) -> dict[str, Any]:
    """Return how many items a second are priced in batches, by one forward pass each."""
    prompts = [" ".join(map(str, row[:-LABELS].tolist())) for row in rows]
    prepare(model, PLAIN)
    on_gpu = model.device.type == "cuda"
    read_prices(model, Numbers(), prompts[:batch], batch=batch)
    start = _now(on_gpu)
    found = read_prices(model, Numbers(), prompts, batch=batch)
    seconds = _now(on_gpu) - start
    if not np.isfinite(found.probabilities).all():
        raise FloatingPointError("a probability is not finite")
    return {"items": len(rows), "items_per_second": round(len(rows) / seconds, 2)}


def written_prices(model: Any, rows: list[torch.Tensor]) -> dict[str, Any]:
    """Return how many items a second ``generate`` prices one by one, writing price and end."""
    prepare(model, PLAIN)
    model.eval()
    on_gpu = model.device.type == "cuda"

    def write(row: torch.Tensor) -> None:
        prompt = row[None, :-LABELS].to(model.device)
        with torch.inference_mode():
            model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                max_new_tokens=LABELS, min_new_tokens=LABELS, pad_token_id=0,
            )  # fmt: skip

    write(rows[0])
    start = _now(on_gpu)
    for row in rows:
        write(row)
    return {"items": len(rows), "items_per_second": round(len(rows) / (_now(on_gpu) - start), 2)}


# All of it


class Report:
    """The figures so far: printed and stored as they come, so that nothing is lost."""

    def __init__(self, path: Path | None, head: dict[str, Any], budget: float) -> None:
        self.path, self.budget, self.start = path, budget, time.perf_counter()
        self.found: dict[str, Any] = head | {"rows": [], "reading": []}

    def measure(self, where: str, name: str, measured: Any, **more: Any) -> None:
        """Call, add what it returns, or why there is nothing: an error is a row, too."""
        row: dict[str, Any] = {"name": name, **more}
        spent = time.perf_counter() - self.start
        if spent > self.budget:
            row["error"] = f"not measured: {self.budget:.0f} s were over"
        else:
            try:
                row |= measured()
            except torch.OutOfMemoryError as error:
                row["error"] = f"out of memory: {str(error).splitlines()[0][:200]}"
            except Exception as error:  # one that fails must not cost the others
                row["error"] = f"{type(error).__name__}: {str(error)[:200]}"
        _tidy()
        plain = self.found["rows"][0] if self.found["rows"] else {}
        if where == "rows" and "error" not in row and "error" not in plain:
            first = plain or row
            row["speed_to_plain"] = round(row["tokens_per_second"] / first["tokens_per_second"], 3)
            if first["peak_gib"]:
                row["memory_to_plain"] = round(row["peak_gib"] / first["peak_gib"], 3)
        self.found[where].append(row)
        self.store()
        keys = ("tokens_per_second", "speed_to_plain", "peak_gib", "memory_to_plain",
                "measured_to_predicted", "computed_mb", "written_mb", "items_per_second",
                "error")  # fmt: skip
        told = "  ".join(f"{key} {row[key]}" for key in keys if row.get(key) is not None)
        print(f"{spent:5.0f} s  {name}: {told}", flush=True)

    def store(self) -> None:
        """Write all figures, if they are to be written."""
        if self.path:
            write_json(self.found, self.path)


def _tidy() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def machine(device: str) -> dict[str, Any]:
    """Return what the figures depend on."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "seed": SEED,
        "device": "cpu", "versions": versions(),
    }  # fmt: skip
    for name in LIBRARIES:
        try:
            found["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found["versions"][name] = None
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            driver = ""
        found |= {
            "device": card.name, "device_gib": round(card.total_memory / GIB, 1),
            "driver": driver.strip() or None, "cuda": torch.version.cuda,
        }  # fmt: skip
    return found


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return which recipes reach the goal: 2 times the speed in 0.7 of the memory."""
    compared = [row for row in rows if row.get("memory_to_plain")]
    fit = [r for r in compared if r["speed_to_plain"] >= 2 and r["memory_to_plain"] <= 0.7]
    fastest = max(fit or compared, key=lambda row: row["speed_to_plain"], default=None)
    return {"reached_by": [row["name"] for row in fit], "best": fastest and fastest["name"]}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and with ``--write`` store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="all of it in small, on a CPU")
    parser.add_argument("--steps", type=int, default=16, help="of 16 items, for each recipe")
    parser.add_argument("--budget", type=float, default=480, help="seconds; what is left is left")
    parser.add_argument("--write", action="store_true", help=f"store the figures in {RESULTS.name}")
    parser.add_argument("--to", type=Path, default=None, help="store them in another file")
    arguments = parser.parse_args(argv)
    if not arguments.dry and not torch.cuda.is_available():
        print("this benchmark needs a GPU (CUDA); --dry runs all of it in small", file=sys.stderr)
        return 2
    if arguments.dry and arguments.write:
        parser.error("figures of --dry say nothing: use --to to look at the file")
    warnings.filterwarnings("ignore", ".*checkpointing.*", FutureWarning)  # new names, old ones
    device = "cpu" if arguments.dry else "cuda"
    shape, longest = (SMALL, 24) if arguments.dry else (SHAPES["Llama 3.1 8B"], LENGTH)
    report = Report(
        arguments.to or (RESULTS if arguments.write else None),
        machine(device) | {"shape": shape.name, "parameters": shape.parameters, "rank": RANK,
                           "targets": TARGETS, "length": longest},
        arguments.budget,
    )  # fmt: skip
    # Whole batches for the largest batch, so that all recipes see the same items.
    rows = items(-(-16 * arguments.steps // 64) * 64, shape.vocabulary, longest)
    model = quantised_model(shape, device)
    held = torch.cuda.memory_allocated() / GIB if device == "cuda" else None
    report.found["model"] = {"seconds": round(time.perf_counter() - report.start, 1), "gib": held}
    report.measure("reading", "adapter", lambda: adapter_size(model, shape))
    chosen = [recipe for recipe in recipes() if not recipe.liger]
    for recipe in chosen:
        _measure_training(report, model, recipe, rows, shape, longest)
    few = rows[: 4 if arguments.dry else 64]
    report.measure("reading", "one at a time", lambda: written_prices(model, few))
    for batch in (32, 128):
        report.measure(
            "reading", f"batches of {batch}", lambda n=batch: batched_prices(model, rows, n)
        )
    for recipe in (recipe for recipe in recipes() if recipe.liger):
        _measure_training(report, model, recipe, rows, shape, longest)
    report.found["verdict"] = verdict(report.found["rows"])
    report.found["seconds"] = round(time.perf_counter() - report.start, 1)
    report.store()
    print(report.found["verdict"])
    return 0


def _measure_training(
    report: Report, model: Any, recipe: Recipe, rows: list, shape: Shape, longest: int
) -> None:
    model.zero_grad(set_to_none=True)
    report.measure(
        "rows", recipe.name, lambda: train(model, recipe, rows, shape, longest),
        recipe=asdict(recipe),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
