"""Relevance rules a second time: plain Python loops over single connections, float64, from their definitions.

Nothing of the package is used here. A layer is a list of connections; a rule walks over them one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = tuple[int, ...]


@dataclass
class Connections:
    """Which inputs an output is the sum of, and with which weights; outputs name their bias by their first index."""

    shape: Index
    wires: dict[Index, list[tuple[Index, float]]] = field(default_factory=dict)


def dense(weight: Array) -> Connections:
    """Connections of y = W x for one vector x."""
    outputs, inputs = weight.shape
    return Connections((outputs,), {(k,): [((j,), weight[k, j]) for j in range(inputs)] for k in range(outputs)})


@dataclass(frozen=True)
class Grid:
    """Geometry of a convolution."""

    stride: Index = (1, 1)
    padding: Index = (0, 0)
    dilation: Index = (1, 1)
    groups: int = 1


def convolution(weight: Array, shape: Index, grid: Grid) -> Connections:
    """Connections of a two-dimensional convolution on one picture of the given (C, H, W)."""
    outputs, per_group, rows, columns = weight.shape
    sizes = [
        (shape[axis + 1] + 2 * grid.padding[axis] - grid.dilation[axis] * (extent - 1) - 1) // grid.stride[axis] + 1
        for axis, extent in enumerate((rows, columns))
    ]
    result = Connections((outputs, *sizes))
    for k, y, x in product(range(outputs), range(sizes[0]), range(sizes[1])):
        first = (k // (outputs // grid.groups)) * per_group
        result.wires[k, y, x] = [
            ((first + c, down, across), weight[k, c, i, j])
            for c, i, j in product(range(per_group), range(rows), range(columns))
            for down in [y * grid.stride[0] - grid.padding[0] + i * grid.dilation[0]]
            for across in [x * grid.stride[1] - grid.padding[1] + j * grid.dilation[1]]
            if 0 <= down < shape[1] and 0 <= across < shape[2]
        ]
    return result


@dataclass
class Result:
    """Relevance of the input, and what was kept."""

    relevance: Array
    bias: float = 0.0
    eps: float = 0.0


def signed(eps: float, z: float) -> float:
    """Return eps with the sign of z, sign(0) = +1."""
    return -eps if z < 0 else eps


def epsilon(x: Array, layer: Connections, bias: Array, relevance: Array, eps: float) -> Result:
    """R_j = sum_k x_j w_kj / (z_k + eps sign z_k) R_k, z with its bias."""
    found = Result(np.zeros_like(x))
    for k, wires in layer.wires.items():
        z = sum(x[j] * w for j, w in wires) + bias[k[0]]
        share = relevance[k] / (z + signed(eps, z))
        for j, w in wires:
            found.relevance[j] += x[j] * w * share
        found.bias += bias[k[0]] * share
        found.eps += signed(eps, z) * share
    return found


def alpha_beta(x: Array, layer: Connections, relevance: Array, alpha: float, beta: float) -> Result:
    """R_j = sum_k (alpha (x_j w_kj)+ / z+_k - beta (x_j w_kj)- / z-_k) R_k; where a sum is empty its part is kept."""
    found = Result(np.zeros_like(x))
    for k, wires in layer.wires.items():
        above = sum(max(x[j] * w, 0) for j, w in wires)
        below = sum(min(x[j] * w, 0) for j, w in wires)
        for j, w in wires:
            if above > 0:
                found.relevance[j] += alpha * max(x[j] * w, 0) / above * relevance[k]
            if below < 0:
                found.relevance[j] -= beta * min(x[j] * w, 0) / below * relevance[k]
        found.eps += alpha * relevance[k] * (above == 0) - beta * relevance[k] * (below == 0)
    return found


def gamma(x: Array, layer: Connections, bias: Array, relevance: Array, factor: float, eps: float) -> Result:
    """R_j = sum_k (z_jk + gamma z+_jk) / (sum_j of it + b_k + gamma b+_k) R_k with z_jk = x_j w_kj."""
    found = Result(np.zeros_like(x))
    for k, wires in layer.wires.items():
        shares = {j: x[j] * w + factor * max(x[j] * w, 0) for j, w in wires}
        favored_bias = bias[k[0]] + factor * max(bias[k[0]], 0)
        z = sum(shares.values()) + favored_bias
        for j, contribution in shares.items():
            found.relevance[j] += contribution / (z + signed(eps, z)) * relevance[k]
        found.bias += favored_bias / (z + signed(eps, z)) * relevance[k]
        found.eps += signed(eps, z) / (z + signed(eps, z)) * relevance[k]
    return found


def z_box(x: Array, layer: Connections, bounds: tuple[Array, Array], relevance: Array, eps: float) -> Result:
    """R_j = sum_k (x_j w_kj - l_j w+_kj - h_j w-_kj) / (sum_j of it) R_k; l and h per channel."""
    low, high = bounds
    found = Result(np.zeros_like(x))
    for k, wires in layer.wires.items():
        shares = {j: x[j] * w - low[j[0]] * max(w, 0) - high[j[0]] * min(w, 0) for j, w in wires}
        z = sum(shares.values())
        for j, contribution in shares.items():
            found.relevance[j] += contribution / (z + signed(eps, z)) * relevance[k]
        found.eps += signed(eps, z) / (z + signed(eps, z)) * relevance[k]
    return found


def windows(shape: Index, pool: tuple[Index, Grid], out: Index) -> Iterator[tuple[Index, list[Index]]]:
    """Yield each output place of a pooling layer and the inputs in its window, row by row."""
    extents, grid = pool
    for c, y, x in product(range(shape[0]), range(out[1]), range(out[2])):
        rows = [y * grid.stride[0] - grid.padding[0] + i * grid.dilation[0] for i in range(extents[0])]
        columns = [x * grid.stride[1] - grid.padding[1] + j * grid.dilation[1] for j in range(extents[1])]
        inside = [(c, i, j) for i in rows for j in columns if 0 <= i < shape[1] and 0 <= j < shape[2]]
        yield (c, y, x), inside


def winner_takes_all(x: Array, pool: tuple[Index, Grid], relevance: Array) -> Array:
    """Give all to the first largest input of each window."""
    found = np.zeros_like(x)
    for k, inside in windows(x.shape, pool, relevance.shape):
        winner = inside[0]
        for j in inside:
            if x[j] > x[winner]:
                winner = j
        found[winner] += relevance[k]
    return found


def sum_terms(terms: Array, relevance: Array, eps: float) -> Result:
    """Proportional shares of z = sum_n terms_n, all of one shape; used for sums, means and weighted sums."""
    found = Result(np.zeros_like(terms))
    for k in product(*(range(size) for size in relevance.shape)):
        z = sum(terms[(n, *k)] for n in range(len(terms)))
        for n in range(len(terms)):
            found.relevance[(n, *k)] = terms[(n, *k)] / (z + signed(eps, z)) * relevance[k]
        found.eps += signed(eps, z) / (z + signed(eps, z)) * relevance[k]
    return found
