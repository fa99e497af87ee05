"""The memory calculator counts what torch, bitsandbytes and peft really make."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from shared.open_models.memory import (
    DEVICES,
    GIB,
    OVERHEAD,
    SHAPES,
    Device,
    Shape,
    adapter_parameters,
    compute_dtype,
    plan,
    table,
    weight_bytes,
)
from shared.pretraining.base_model import Recipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_iter  # noqa: E402

PUBLISHED = {
    "Llama 3.2 1B": 1_235_814_400,
    "Llama 3.2 3B": 3_212_749_824,
    "Llama 3.1 8B": 8_030_261_248,
    "Qwen3 0.6B": 596_049_920,
    "Qwen3 1.7B": 1_720_574_976,
    "Qwen3 4B": 4_022_468_096,
    "Qwen3 8B": 8_190_735_360,
}
SMALL = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1_024,
    "tie_word_embeddings": True,
}  # fmt: skip


def small_config(**changes):
    return transformers.LlamaConfig(**SMALL | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small Llama with random weights on the disk."""
    where = tmp_path_factory.mktemp("small")
    transformers.LlamaForCausalLM(small_config()).save_pretrained(where)
    return where


def quantised(folder: Path, dtype=torch.float32, nested: bool = True):
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested,
        bnb_4bit_compute_dtype=dtype,
    )  # fmt: skip
    return transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=config
    )


# Parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert SHAPES[name].parameters == PUBLISHED[name]


def test_the_tiny_shape_is_the_recipe():
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=Recipe().vocabulary, hidden_size=Recipe().hidden,
            intermediate_size=Recipe().inner, num_hidden_layers=Recipe().layers,
            num_attention_heads=Recipe().heads, num_key_value_heads=Recipe().heads // 2,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    assert SHAPES["tiny"].parameters == sum(p.numel() for p in model.parameters())
    assert Shape.of(model.config, "tiny") == SHAPES["tiny"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen3"])
def test_parts_are_those_of_a_model(kind, tied):
    config = getattr(transformers, f"{kind}Config")(
        **SMALL | {"tie_word_embeddings": tied, "num_hidden_layers": 2, "head_dim": 48}
    )
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    shape = Shape.of(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    layer = dict(model.model.layers[0].named_parameters())
    for name, sides in shape.matrices.items():
        found = [p for key, p in layer.items() if key.endswith(f".{name}_proj.weight")]
        assert [tuple(p.shape) for p in found] == [sides]
    assert shape.parts["embeddings"] == model.model.embed_tokens.weight.numel()
    assert bool(shape.parts["output"]) is not tied


def test_models_that_would_be_miscounted_are_refused():
    with pytest.raises(ValueError, match="'gpt2' is none of llama"):
        Shape.of(transformers.GPT2Config())
    with pytest.raises(ValueError, match="llama attention_bias"):
        Shape.of(small_config(attention_bias=True))
    with pytest.raises(ValueError, match="layers: 0"):
        Shape("none", 0, 8, 2, 2, 4, 8, 10, True)


# Weights and adapters


def held(model) -> int:
    """Bytes of all that a model holds: parameters, and the constants of quantised ones."""
    tensors = []
    for parameter in model.parameters():
        tensors.append(parameter)
        if state := getattr(parameter, "quant_state", None):
            nested = state.state2
            tensors += [state.absmax, state.code]
            tensors += [nested.absmax, nested.code, state.offset] if nested else []
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_four_bit_weights_take_what_bitsandbytes_holds(folder, dtype, nested):
    model = quantised(folder, dtype, nested)
    rest = 8 * dtype.itemsize
    counted = weight_bytes(Shape.of(small_config()), 4, double_quantisation=nested, rest_bits=rest)
    assert counted == held(model)


@pytest.mark.parametrize(("bits", "dtype"), [(16, torch.bfloat16), (32, torch.float32)])
def test_plain_weights_take_their_bits(bits, dtype):
    model = transformers.LlamaForCausalLM(small_config()).to(dtype)
    assert weight_bytes(Shape.of(small_config()), bits, rest_bits=bits) == held(model)


def test_eight_bit_weights_take_what_bitsandbytes_holds(folder):
    config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    model = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=config
    )
    constants = sum(
        p.SCB.numel() * p.SCB.element_size()
        for p in model.parameters() if getattr(p, "SCB", None) is not None
    )  # fmt: skip
    assert constants
    assert weight_bytes(Shape.of(small_config()), 8, rest_bits=32) == held(model) + constants


def test_bits_a_weight_are_those_of_the_paper():
    """QLoRA (2023): 0.5 bits a weight for the constants, 0.127 with double quantisation."""
    shape = SHAPES["Llama 3.1 8B"]
    linear = shape.parts["attention"] + shape.parts["feed-forward"]
    rest = 2 * (shape.parameters - linear)
    for nested, wanted in ((False, 4 + 32 / 64), (True, 4 + 8 / 64 + 32 / (64 * 256))):
        found = weight_bytes(shape, 4, double_quantisation=nested) - rest
        assert 8 * found / linear == pytest.approx(wanted, rel=1e-3)


def test_adapters_of_the_well_known_recipe_are_109_megabytes():
    parameters = adapter_parameters("Llama 3.1 8B", 32, "q,k,v,o")
    assert parameters == 27_262_976
    assert 4 * parameters / 1e6 == pytest.approx(109, abs=0.1)


@pytest.mark.parametrize(
    ("name", "rank", "wanted"),
    [
        ("Llama 3.1 8B", 16, 41_943_040),
        ("Qwen3 8B", 16, 43_646_976),
        ("Qwen3 4B", 16, 33_030_144),
        ("Qwen3 4B", 8, 16_515_072),
    ],
)
def test_adapters_on_all_matrices_are_those_others_report(name, rank, wanted):
    assert adapter_parameters(name, rank) == wanted


def adapted(model, targets: str, rank: int = 8):
    names = targets if targets == "all-linear" else [f"{n}_proj" for n in targets.split(",")]
    config = peft.LoraConfig(r=rank, target_modules=names, task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize("targets", ["q,k,v,o", "all-linear", "q,v", "down"])
def test_adapters_are_those_that_peft_makes(targets):
    model = adapted(transformers.LlamaForCausalLM(small_config(head_dim=48)), targets)
    shape = Shape.of(small_config(head_dim=48))
    made = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert adapter_parameters(shape, 8, targets) == made
    assert adapter_parameters(shape, 8, targets.replace(",", "_proj, ")) == made


# A training step


class Meter(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, as long as anything holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.sizes = 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._note((args, kwargs or {}), made=False)
        out = func(*args, **(kwargs or {}))
        self._note(out, made=True)
        return out

    def _note(self, tree, *, made: bool) -> None:
        for tensor in tree_iter(tree):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes() if made else 0
                self.now += self.sizes[storage._cdata]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


def test_the_meter_counts_what_is_held_at_once():
    with Meter() as meter:
        kept = torch.zeros(1_000)
        for _ in range(3):
            torch.ones(500).view(5, 100)  # let go at once; the view takes nothing
    assert meter.peak == 4 * (1_000 + 500)
    assert meter.now == 4 * len(kept)


def peak_of_a_step(model, batch: int, length: int, labelled: int | None) -> int:
    base = model.base_model.model
    ids = torch.randint(0, base.config.vocab_size, (batch, length))
    with Meter() as meter:
        hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state
        chosen = slice(0 if labelled is None else length - labelled, length)
        logits = base.lm_head(hidden[:, chosen]).float().flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, ids[:, chosen].flatten())
        del hidden, logits
        loss.backward()
    return meter.peak


@pytest.mark.parametrize("labelled", [4, None])
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("targets", ["q,k,v,o", "all-linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_estimate_is_within_15_percent_of_a_step(folder, dtype, targets, checkpointing, labelled):
    """On a CPU, what torch allocates while it computes a step, but for the allocator's waste."""
    model = adapted(quantised(folder, dtype), targets)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    bits = 8 * dtype.itemsize
    estimate = plan(
        Shape.of(model.config), batch=4, length=128, rank=8, targets=targets,
        checkpointing=checkpointing, labelled_tokens=labelled, adapter_bits=bits,
        compute_bits=bits,
    ).parts  # fmt: skip
    counted = sum(estimate[part] for part in ("activations", "logits", "gradients"))
    assert counted == pytest.approx(peak_of_a_step(model, 4, 128, labelled), rel=0.15)


@pytest.mark.parametrize(
    ("optimizer", "bytes_each"),
    [("adamw_32bit", 8), ("adamw_torch", 4), ("paged_adamw_8bit", 2 + 8 / 256)],
)
def test_optimizer_states(optimizer, bytes_each):
    one = plan("Qwen3 0.6B", batch=1, length=8, optimizer=optimizer, adapter_bits=16)
    trained = adapter_parameters("Qwen3 0.6B", 32)
    assert one.parts["optimizer"] == pytest.approx(bytes_each * trained, rel=1e-6)
    assert one.parts["adapters"] == one.parts["gradients"] == 2 * trained


def test_states_of_torch_are_counted():
    shape = Shape.of(small_config())
    model = adapted(transformers.LlamaForCausalLM(small_config()), "all-linear")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model(input_ids=torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()
    optimizer.step()
    moments = [
        s[name] for s in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")
    ]  # fmt: skip
    one = plan(shape, batch=1, length=2, rank=8, optimizer="adamw_torch")
    assert one.parts["optimizer"] == sum(m.numel() * m.element_size() for m in moments)


# What fits, and what would make it fit


def test_total_is_the_sum_of_what_is_printed():
    one = plan("Llama 3.1 8B", batch=16, length=182)
    assert one.total == sum(one.parts.values())
    assert one.parts["overhead"] == OVERHEAD
    lines = str(one).splitlines()
    assert [line.split()[0] for line in lines] == [*one.parts, "total"]
    assert "an estimate" in str(one)
    assert "assumed" in str(one)


def test_each_saving_saves():
    careless = {"bits": 16, "checkpointing": False, "optimizer": "adamw_32bit"}
    whole = plan("Llama 3.1 8B", batch=16, length=182, **careless).total
    for name, value in {
        "bits": 4, "checkpointing": True, "optimizer": "paged_adamw_8bit", "labelled_tokens": 4,
        "rank": 8, "targets": "q,k,v,o", "batch": 8, "length": 91, "adapter_bits": 16,
    }.items():  # fmt: skip
        assert (
            plan("Llama 3.1 8B", **{"batch": 16, "length": 182, **careless, name: value}).total
            < whole
        )


@pytest.mark.parametrize("field", ["batch", "length"])
def test_the_largest_fits_and_the_next_does_not(field):
    one = plan("Llama 3.1 8B", batch=16, length=512)
    settings = {"batch": 16, "length": 512}
    most = one.largest(field, "T4")
    assert plan("Llama 3.1 8B", **settings | {field: most}).fits("T4")
    assert not plan("Llama 3.1 8B", **settings | {field: most + 1}).fits("T4")
    assert one.largest(field, Device("toy", 1.5, (8, 0))) == 0
    assert plan("tiny", batch=1, length=8).largest("batch", "T4", most=32) == 32


def test_advice_names_changes_and_what_they_take():
    one = plan("Llama 3.1 8B", batch=16, length=182, bits=16, checkpointing=False)
    lines = one.advice("T4")
    assert (
        lines[0]
        == f"as it is: {one.total / GIB:.1f} GiB, {-one.spare('T4') / GIB:.1f} GiB too much"
    )
    changes = ["checkpointing=True", "bits=4", "labelled_tokens=8"]
    assert [line.partition(":")[0] for line in lines[1:4]] == changes
    assert lines[-1].startswith("checkpointing=True optimizer=paged_adamw_8bit bits=4")
    assert lines[-1].endswith("fits")
    assert all("fits" in line or "too much" in line for line in lines)


def test_advice_about_what_fits_already():
    lines = plan("tiny", batch=1, length=8).advice("T4")
    assert lines[0].endswith("fits")


def test_advice_where_nothing_helps():
    lines = plan("Llama 3.1 8B", batch=1, length=8).advice(Device("toy", 4.0, (8, 0)))
    assert "smaller model, or a larger card" in lines[-1]
    assert not any("=0" in line for line in lines)


def test_table_has_a_row_a_shape_and_a_column_a_card():
    lines = table(batch=16, length=512).splitlines()
    assert len(lines) == 1 + len(SHAPES)
    assert all(card in lines[0] for card in DEVICES)
    row = next(line for line in lines if line.startswith("Llama 3.1 8B"))
    assert "short" in row
    assert "free" in row
    small = table(["Qwen3 4B"], ["L4"], batch=1, length=64).splitlines()
    assert len(small) == 2
    assert small[1].count("free") == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": 0}, "batch: 0"),
        ({"length": 1.5}, "length: 1.5"),
        ({"batch": True}, "batch: True"),
        ({"rank": -1}, "rank: -1"),
        ({"labelled_tokens": 0}, "labelled_tokens: 0"),
        ({"bits": 3}, "bits: 3 is none of 4, 8, 16, 32"),
        ({"compute_bits": 8}, "rest_bits: 8"),
        ({"adapter_bits": 4}, "adapter_bits: 4"),
        ({"optimizer": "adam"}, "optimizer: 'adam' is none of adamw_torch"),
        ({"targets": "q,x"}, "targets: 'x' is none of q, k"),
        ({"shape": "Llama 9"}, "'Llama 9' is none of tiny"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        plan(**{"shape": "tiny", "batch": 1, "length": 8, **settings})


def test_an_unknown_card_is_refused():
    with pytest.raises(ValueError, match="'RTX' is none of T4"):
        plan("tiny", batch=1, length=8).fits("RTX")


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", "float32"), ("T4", "float16"), ((7, 0), "float16"), ("L4", "bfloat16"),
        ((9, 0), "bfloat16"), (DEVICES["A100 40"], "bfloat16"),
    ],
)  # fmt: skip
def test_number_format_and_why(device, dtype):
    found, why = compute_dtype(device)
    assert found == dtype
    assert getattr(torch, found).is_floating_point
    assert len(why) > 20


def test_it_is_computed_without_torch():
    code = (
        "import sys, shared.open_models.memory as m; "
        "m.table(batch=1, length=8); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(done.stdout.split())
