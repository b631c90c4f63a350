"""How a summary of sparse networks looks: a row per layer, then lines on paths, sizes and costs."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from sb3_rlx2.paths import architecture
from sb3_rlx2.sparse_mlp import SparseMLP


class LayerRow(NamedTuple):
    """
    A layer in a summary.

    :param name: such as ``"actor.mu.0"``
    :param shape: such as ``"256 x 11"``
    :param nnz: number of live weights
    :param sparsity: such as ``"87.4%"``
    """

    name: str
    shape: str
    nnz: str
    sparsity: str


class Total(NamedTuple):
    """
    A figure of a whole model in a summary.

    :param name: such as ``"inference"``
    :param own: of the model, in units or bytes
    :param dense: of the dense one of the same shape
    :param unit: what a thousand of them are, such as ``"kB"``
    """

    name: str
    own: float
    dense: float
    unit: str


def as_text(networks: Mapping[str, SparseMLP], totals: Iterable[Total]) -> str:
    """
    Lay out a summary as text.

    :param networks: the sparse networks by name
    :param totals: what is said of the whole model
    """
    rows = [LayerRow("layer", "shape", "nnz", "sparsity"), *_layer_rows(networks)]
    lines = [f"{row.name:<28}{row.shape:>12}{row.nnz:>10}{row.sparsity:>10}" for row in rows]
    return "\n".join([*lines, *_lines(networks, totals)])


def as_html(title: str, networks: Mapping[str, SparseMLP], totals: Iterable[Total]) -> str:
    """
    Lay out a summary for notebooks.

    :param title: stands above it
    :param networks: the sparse networks by name
    :param totals: what is said of the whole model
    """
    head = "".join(f"<th>{name}</th>" for name in LayerRow._fields)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _layer_rows(networks))
    items = "".join(f"<li>{escape(line)}</li>" for line in _lines(networks, totals))
    return f"<p><code>{escape(title)}</code></p><table><tr>{head}</tr>{rows}</table><ul>{items}</ul>"


def _layer_rows(networks: Mapping[str, SparseMLP]) -> Sequence[LayerRow]:
    return [
        LayerRow(
            f"{name}.{number}",
            f"{layer.out_features} x {layer.in_features}",
            f"{layer.nnz:,}",
            f"{1 - layer.nnz / layer.size:.1%}",
        )
        for name, mlp in networks.items()
        for number, layer in enumerate(mlp.layers)
    ]


def _lines(networks: Mapping[str, SparseMLP], totals: Iterable[Total]) -> list[str]:
    lines = [f"{name}: {architecture(mlp)}" for name, mlp in networks.items()]
    for name, own, dense, unit in totals:
        lines.append(f"{name}: {own / 1e3:,.1f} {unit}, {own / dense:.1%} of the dense {dense / 1e3:,.1f}")
    return lines
