"""Rates of the kernels, from the stored section ``kernels``."""

from dataclasses import dataclass

from benchmarks.speed.results import Row, Section, gflops, median

WIDTH = 256
INSIDE = 4  # layers by which the deeper of both networks is deeper


@dataclass(frozen=True)
class Rate:
    """
    GFLOP/s of a product.

    :param single: a network of one layer, the whole call
    :param inside: a further layer of a network
    """

    single: float
    inside: float


def rate(row: Row, product: str) -> Rate:
    """Give the rate of ``"forward"``, ``"input gradient"`` or ``"weight gradient"``."""
    flops = 2 * WIDTH**2 * row["density"] * row["batch"]
    single, inside = median(row, f"{product}, 1"), _inside(row, product)
    if product == "weight gradient":  # a deeper network also needs the gradients by its hidden layers
        inside -= _inside(row, "input gradient")
    return Rate(gflops(flops, single), gflops(flops, inside) if inside > 0 else float("nan"))


def _inside(row: Row, product: str) -> float:
    return (median(row, f"{product}, 5") - median(row, f"{product}, 1")) / INSIDE


def dense_rate(section: Section, batch: int, name: str = "dense") -> float:
    """GFLOP/s of torch's dense product, the fastest of the medians that were taken beside the kernels."""
    return max(gflops(2 * WIDTH**2 * batch, median(row, name)) for row in section.where(batch=batch))


def typical(section: Section, product: str, density: float = 0.10, batch: int = 256) -> float:
    """The rate that the floors of the stages assume."""
    return rate(section.one(density=density, batch=batch), product).inside
