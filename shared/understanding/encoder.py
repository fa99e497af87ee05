"""A small encoder of BERT's kind, attention in both directions; and the same as ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import nn

from shared.compression.graph import Graph, array

FIRST = 0.1
"""Standard deviation of embeddings before training."""


@dataclass(frozen=True)
class Recipe:
    """How an encoder is made and taught.

    ``tokens`` of a text are read. ``soft``: share of the loss that is the distance from the
    teacher's probabilities, where there is a teacher; ``temperature`` flattens both, so that the
    unlikely categories say something, too (Hinton et al., 2015).
    """

    layers: int = 2
    hidden: int = 128
    heads: int = 4
    inner: int = 384
    tokens: int = 48
    epochs: int = 3
    batch: int = 32
    rate: float = 1e-3
    soft: float = 0.7
    temperature: float = 2.0
    seed: int = 42


class Encoder(nn.Module):
    """A small encoder: words and places, layers, and the mean over all tokens for the answer.

    BERT answers from its first token, which takes a long pre-training to gather anything; the mean
    has something to say from the first step.
    """

    def __init__(self, recipe: Recipe, words: int, outputs: int) -> None:
        super().__init__()
        sizes = recipe.hidden, recipe.heads, recipe.inner
        self.words = nn.Embedding(words, recipe.hidden)
        self.places = nn.Embedding(recipe.tokens, recipe.hidden)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(*sizes, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(recipe.layers)
        )
        self.norm, self.out = nn.LayerNorm(recipe.hidden), nn.Linear(recipe.hidden, outputs)
        nn.init.normal_(self.words.weight, std=FIRST)
        nn.init.normal_(self.places.weight, std=FIRST / 10)
        for layer in self.layers:  # at first they add nothing, and the mean of the words is there
            for last in (layer.self_attn.out_proj, layer.linear2):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the outputs, (n, outputs), for token ids and 1 for tokens, 0 for padding."""
        return self.out(self.pooled(input_ids, attention_mask))

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return what is known of each text before the answer, (n, hidden)."""
        value = self.words(input_ids) + self.places.weight[: input_ids.shape[1]]
        for layer in self.layers:
            value = layer(value, src_key_padding_mask=attention_mask == 0)
        mask = attention_mask[:, :, None].float()
        return (self.norm(value) * mask).sum(dim=1) / mask.sum(dim=1)


def encoder_graph(model: Encoder) -> onnx.ModelProto:
    """Return the graph of an encoder.

    Inputs: ``ids``, int64, and ``mask``, float, 1 for a token and 0 for padding, (n, length).
    """
    return _Encoder(model).build()


class _Encoder:
    def __init__(self, model: Encoder) -> None:
        self.model, self.graph = model, Graph()

    def build(self) -> onnx.ModelProto:
        g, model = self.graph, self.model
        ids = g.input("ids", "int64", ["n", "length"])
        mask = g.input("mask", "float", ["n", "length"])
        length = g.op("Slice", g.op("Shape", ids), g.whole(1), g.whole(2))
        places = g.weight(array(model.places.weight))
        places = g.op("Slice", places, g.whole(0), length)
        words = g.op("Gather", g.weight(array(model.words.weight)), ids)
        value = g.op("Add", words, places)
        hidden = g.op("Mul", g.op("Sub", mask, g.number(1)), g.number(1e9))
        hidden = g.op("Unsqueeze", hidden, g.whole(1, 2))
        for layer in model.layers:
            value = self.layer(layer, value, hidden)
        there = g.op("Unsqueeze", mask, g.whole(2))
        value = g.op("Mul", self.normed(value, model.norm), there)
        sums, counts = (g.op("ReduceSum", part, g.whole(1), keepdims=0) for part in (value, there))
        found = self.linear(g.op("Div", sums, counts), model.out)
        return g.model(found, ["n", model.out.out_features])

    def layer(self, layer: nn.TransformerEncoderLayer, value: str, hidden: str) -> str:
        g, own = self.graph, layer.self_attn
        normal = self.normed(value, layer.norm1)
        parts = zip(own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3), strict=True)
        queries, keys, values = (
            self.heads(g.linear(normal, array(weight), array(bias)), own) for weight, bias in parts
        )
        keys = g.op("Transpose", keys, perm=[0, 1, 3, 2])
        found = g.attention(queries, keys, values, own.head_dim, hidden)
        found = g.op("Transpose", found, perm=[0, 2, 1, 3])
        found = g.op("Reshape", found, g.whole(0, 0, -1))
        value = g.op("Add", value, self.linear(found, own.out_proj))
        inner = g.op("Relu", self.linear(self.normed(value, layer.norm2), layer.linear1))
        return g.op("Add", value, self.linear(inner, layer.linear2))

    def heads(self, value: str, own: nn.MultiheadAttention) -> str:
        shape = self.graph.whole(0, 0, own.num_heads, own.head_dim)
        split = self.graph.op("Reshape", value, shape)
        return self.graph.op("Transpose", split, perm=[0, 2, 1, 3])

    def linear(self, value: str, part: Any) -> str:
        return self.graph.linear(value, array(part.weight), array(part.bias))

    def normed(self, value: str, norm: Any) -> str:
        weights = (self.graph.weight(array(part)) for part in (norm.weight, norm.bias))
        return self.graph.op("LayerNormalization", value, *weights, axis=-1, epsilon=norm.eps)
