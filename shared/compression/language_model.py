"""A language model that reads prices, as ONNX: base and adapter merged, one forward pass.

What is asked is always the same, "Price is $", and only the answer's first token matters. So the
graph has what that takes and no more: its last layer looks back from the last position alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from shared.compression.exported import MODEL, write_exported
from shared.compression.exported_text import LANGUAGE_MODEL, TOKENIZER
from shared.compression.exporting import as_bytes
from shared.compression.four_bits import in_four_bits
from shared.compression.graph import Graph, array
from shared.open_models.reading import PRICES, price_tokens_of

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from shared.open_models.pricer import OpenModelPricer

TOLERANCE = 1e-4
"""By how much a probability may differ from that of PyTorch, with 32 bits."""
INT8_TOLERANCE = 0.05
"""By how much, as a share, the mean price of a hundred products may, with eight bits."""
INT4_TOLERANCE = 0.1
"""The same with four."""

QUESTION_TOKENS = 64
"""Room for the words around a product's text; the question itself takes about twenty."""
LARGEST = 2_000_000_000
"""Bytes that an ONNX file can have."""


def export_language_model(pricer: OpenModelPricer, folder: Path, precision: str = "fp32") -> Path:
    """Write a tuned model (``tuned_pricer``) as a folder that ``OnnxLanguagePricer`` opens.

    ``precision``: "fp32"; or "int8": all matrices in eight bits, a scale for each column, and what
    is multiplied with them rounded to eight bits, too; or "int4": matrices in four bits (see
    ``four_bits``) and the table of words in eight.

    Raises ValueError for a model that is not of Llama's kind, whose adapter is not merged, whose
    tokenizer has no single token for a price, or that is too large for one ONNX file.
    """
    model, tokenizer = pricer.model, pricer.tokenizer
    _refuse_others(model)
    paths = [price_tokens_of(tokenizer, price) for price in PRICES]
    if any(len(path) != 1 for path in paths):
        raise ValueError(f"{pricer.name}: its tokenizer writes prices as several tokens")
    tokens = np.array(paths)[:, 0]
    graph = llama_graph(
        model, tokens, pricer.settings["text_tokens"] + QUESTION_TOKENS, tied=precision != "int8"
    )
    facts = {
        "kind": LANGUAGE_MODEL, "name": f"{pricer.name}, ONNX {precision}", "precision": precision,
        "text_tokens": pricer.settings["text_tokens"], "reading": pricer.settings["reading"],
        "pad": tokenizer.pad_token_id, "prices": list(PRICES),
        "settings": {k: v for k, v in pricer.settings.items() if k != "reading"},
    }  # fmt: skip
    if precision == "int4":
        model_bytes = as_bytes(in_four_bits(graph), "int8", ("Gather",))
    else:
        model_bytes = as_bytes(graph, precision, ("Gather", "MatMul"))
    files = {
        MODEL: model_bytes,
        TOKENIZER: tokenizer.backend_tokenizer.to_str().encode(),
    }
    return write_exported(folder, files, facts)


def _refuse_others(model: Any) -> None:
    c = model.config
    if c.model_type != "llama" or c.attention_bias or c.mlp_bias or c.hidden_act != "silu":
        raise ValueError(f"{c.model_type}: only models of Llama's kind can be written as ONNX")
    if hasattr(model, "peft_config"):
        raise ValueError("the adapter is not merged: open the model on a CPU, or `merge` it first")
    size = sum(4 * parameter.numel() for parameter in model.parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e9:.1f} GB in 32 bits: an ONNX file has at most 2 GB")


def llama_graph(
    model: LlamaForCausalLM, tokens: np.ndarray, positions: int, *, tied: bool
) -> onnx.ModelProto:
    """Return a graph from token ids to the log probabilities of ``tokens`` after the last one.

    Inputs: ``ids``, int64 (n, length), padded on the right, and ``ends``, int64 (n, 1), where the
    last token of each is. Outputs: (n, tokens). ``positions``: the greatest length. ``tied``:
    embeddings and output share one matrix, if they do in the model.
    """
    return _Llama(model, positions).build(tokens, tied)


class _Llama:
    """The graph of a Llama on its way. RMS norms are without weights: the next matrix has them."""

    def __init__(self, model: LlamaForCausalLM, positions: int) -> None:
        import torch

        self.model, self.graph, self.config = model, Graph(), model.config
        with torch.no_grad():
            turn = model.model.rotary_emb(torch.zeros(1), torch.arange(positions)[None])
        self.turns = [table[0].float().numpy() for table in turn]
        self.size = model.model.layers[0].self_attn.head_dim
        self.groups = self.config.num_key_value_heads
        self.each = self.config.num_attention_heads // self.groups

    def build(self, tokens: np.ndarray, tied: bool) -> onnx.ModelProto:
        g, layers = self.graph, self.model.model.layers
        ids = g.input("ids", "int64", ["n", "length"])
        ends = g.input("ends", "int64", ["n", 1])
        words = array(self.model.model.embed_tokens.weight)
        table = g.weight(words)
        value = g.op("Gather", table, ids)
        length = g.op("Gather", g.op("Shape", ids), g.weight(1, np.int64))
        everywhere = g.op("Range", g.weight(0, np.int64), length, g.weight(1, np.int64))
        everywhere = g.op("Unsqueeze", everywhere, g.whole(0))  # (1, length)
        for layer in layers[:-1]:
            value = self.layer(layer, value, value, everywhere, everywhere)
        last = g.op("GatherND", value, ends, batch_dims=1)  # (n, hidden)
        last = g.op("Unsqueeze", last, g.whole(1))
        last = self.normal(self.layer(layers[-1], last, value, ends, everywhere))
        norm = self.model.model.norm
        if tied and self.model.config.tie_word_embeddings:
            last = g.op("Mul", last, g.weight(array(norm.weight)))
            logits = g.op("MatMul", last, g.op("Transpose", table, perm=[1, 0]))
        else:
            logits = g.linear(last, _with_norm(norm, self.model.lm_head))
        logs = g.op("LogSoftmax", g.op("Squeeze", logits, g.whole(1)), axis=-1)
        return g.model(g.op("Gather", logs, g.weight(tokens, np.int64), axis=1), ["n", len(tokens)])

    def layer(self, layer: Any, asking: str, seen: str, at: str, everywhere: str) -> str:
        """Add a layer that gives values for the positions ``at`` of those ``asking``."""
        g, attention, inner = self.graph, layer.self_attn, layer.mlp
        before, after = layer.input_layernorm, layer.post_attention_layernorm
        normal = self.normal(seen)
        asked = normal if asking == seen else self.normal(asking)
        queries = self.turned(self.heads(asked, before, attention.q_proj, self.each), at)
        keys = self.turned(self.heads(normal, before, attention.k_proj, 1), everywhere)
        values = self.heads(normal, before, attention.v_proj, 1)
        keys = g.op("Transpose", keys, perm=[0, 1, 2, 4, 3])
        found = g.attention(queries, keys, values, self.size, self.hidden(at, everywhere))
        found = g.op("Transpose", found, perm=[0, 3, 1, 2, 4])
        found = g.op("Reshape", found, g.whole(0, 0, -1))
        asking = g.op("Add", asking, g.linear(found, array(attention.o_proj.weight)))
        normal = self.normal(asking)
        gate = g.linear(normal, _with_norm(after, inner.gate_proj))
        gate = g.op("Mul", gate, g.op("Sigmoid", gate))
        up = g.op("Mul", gate, g.linear(normal, _with_norm(after, inner.up_proj)))
        return g.op("Add", asking, g.linear(up, array(inner.down_proj.weight)))

    def normal(self, value: str) -> str:
        """Divide by the root of the mean square."""
        g = self.graph
        square = g.op("ReduceMean", g.op("Mul", value, value), g.whole(-1))
        root = g.op("Sqrt", g.op("Add", square, g.number(self.config.rms_norm_eps)))
        return g.op("Div", value, root)

    def heads(self, value: str, norm: Any, projection: Any, each: int) -> str:
        """Project and split: (n, groups of heads, heads of each, length, head size)."""
        g = self.graph
        found = g.linear(value, _with_norm(norm, projection))
        shape = g.whole(0, 0, self.groups, each, self.size)
        return g.op("Transpose", g.op("Reshape", found, shape), perm=[0, 2, 3, 1, 4])

    def turned(self, heads: str, at: str) -> str:
        """Turn each pair of numbers by its position (rotary embeddings; Su et al., 2021)."""
        g, half = self.graph, self.size // 2
        axes = g.whole(1, 2)
        cos, sin = (
            g.op("Unsqueeze", g.op("Gather", g.weight(table), at), axes) for table in self.turns
        )
        first, second = (
            g.op("Slice", heads, *(g.whole(edge) for edge in (start, stop, 4)))
            for start, stop in ((0, half), (half, self.size))
        )
        swapped = g.op("Concat", g.op("Neg", second), first, axis=4)
        return g.op("Add", g.op("Mul", heads, cos), g.op("Mul", swapped, sin))

    def hidden(self, at: str, everywhere: str) -> str:
        """Return what keeps a position from seeing later ones, padding among them."""
        g = self.graph
        asks = g.op("Unsqueeze", at, g.whole(2))
        later = g.op("Cast", g.op("Less", asks, everywhere), to=1)  # (n or 1, asking, length)
        later = g.op("Mul", later, g.number(-1e9))
        return g.op("Unsqueeze", later, g.whole(1, 2))


def _with_norm(norm: Any, linear: Any) -> np.ndarray:
    """Return a matrix that takes what has been normed without weights."""
    return array(linear.weight) * array(norm.weight)[None, :]
