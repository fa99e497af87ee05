"""Matrices in four bits, block by block, as ONNX Runtime multiplies them.

Eight bits can share one scale for a whole column; with sixteen steps that is too coarse. So each
block of 32 numbers gets its own, as in NF4 of week 7. Here the steps are even, though, since that
is what the runtime's operation ``MatMulNBits`` reads, and what it adds up stays in 32 bits.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

BLOCK = 32
"""Numbers of a column that share a scale."""
MIDDLE = 8
"""The step that means zero: the steps are 0 to 15."""
DOMAIN = "com.microsoft"


def packed(matrix: np.ndarray, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix (k, n) in four bits: steps and scales, (n, blocks).

    Steps: uint8, (n, blocks, block / 2), two in a byte, the first one in its lower half. A block's
    largest number is step 0: there is one step more below zero than above, and it is the one
    number that must fit.
    """
    k, n = matrix.shape
    blocks = -(-k // block)
    columns = np.zeros((n, blocks * block), np.float32)
    columns[:, :k] = matrix.T
    columns = columns.reshape(n, blocks, block)
    largest = np.take_along_axis(columns, np.abs(columns).argmax(axis=2)[:, :, None], axis=2)
    scales = largest / -MIDDLE
    steps = np.rint(columns / np.where(scales == 0, 1, scales)) + MIDDLE
    steps = steps.clip(0, 15).astype(np.uint8)
    return steps[:, :, ::2] | steps[:, :, 1::2] << 4, scales[:, :, 0]


def in_four_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose products with constant matrices (k, n) have these in four bits."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            continue
        name = node.input[1]
        matrix = numpy_helper.to_array(weights[name])
        if matrix.ndim == 2:
            steps, scales = packed(matrix)
            names = f"{name} in steps", f"{name} scales"
            graph.initializer.extend(
                numpy_helper.from_array(values, one)
                for values, one in zip((steps, scales), names, strict=True)
            )
            sizes = {"K": matrix.shape[0], "N": matrix.shape[1], "bits": 4, "block_size": BLOCK}
            inputs = [node.input[0], *names]
            node.CopyFrom(helper.make_node(
                "MatMulNBits", inputs, list(node.output), domain=DOMAIN, **sizes
            ))  # fmt: skip
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    found.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return found
