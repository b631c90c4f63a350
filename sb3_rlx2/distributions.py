"""How many live weights each layer gets. All functions here have the signature ``(shapes, sparsity) -> nnz per layer``."""

from collections.abc import Callable, Mapping, Sequence

from sb3_rlx2.validation import check_integer, check_number, lookup

Shape = tuple[int, int]  # (out_features, in_features)


def uniform(shapes: Sequence[Shape], sparsity: float) -> list[int]:
    """
    Give every layer the same sparsity.

    :param shapes: ``(out, in)`` of each layer
    :param sparsity: share of zeros, in ``[0, 1)``
    :return: number of live weights per layer
    """
    sparsity = check_number("sparsity", sparsity, 0.0, 1.0, high_included=False)
    return _to_nnz(shapes, [sparsity] * len(shapes))


def erdos_renyi(shapes: Sequence[Shape], sparsity: float) -> list[int]:
    """
    Give layer ``l`` a density proportional to ``(in + out) / (in * out)``, so that narrow layers stay denser
    (Mocanu et al., 2018; RigL, Evci et al., 2020, section 3). A layer that would pass density 1 is dense and
    the others are solved again. Solving the list of all layers of twin critics equals solving one of them.

    :param shapes: ``(out, in)`` of each layer
    :param sparsity: share of zeros over all layers together, in ``[0, 1)``
    :return: number of live weights per layer
    """
    sparsity = check_number("sparsity", sparsity, 0.0, 1.0, high_included=False)
    sizes = [out * into for out, into in shapes]
    ratios = [(out + into) / (out * into) for out, into in shapes]
    live = (1.0 - sparsity) * sum(sizes)
    dense: set[int] = set()
    while True:
        rest = [layer for layer in range(len(shapes)) if layer not in dense]
        if not rest:
            return sizes
        budget = live - sum(sizes[layer] for layer in dense)
        scale = budget / sum(sizes[layer] * ratios[layer] for layer in rest)
        overfull = {layer for layer in rest if scale * ratios[layer] > 1.0}
        if not overfull:
            break
        dense |= overfull
    sparsities = [0.0 if layer in dense else 1.0 - scale * ratio for layer, ratio in enumerate(ratios)]
    return _to_nnz(shapes, sparsities)


def dense_output(shapes: Sequence[Shape], sparsity: float) -> list[int]:
    """
    Give every unit of the hidden layers the same number of links, to the share of its inputs that is nearest to the density,
    and the output layer all.

    :param shapes: ``(out, in)`` of each layer
    :param sparsity: share of zeros in the hidden layers, in ``[0, 1)``
    :return: number of live weights per layer
    :raises ValueError: if there is no hidden layer
    """
    sparsity = check_number("sparsity", sparsity, 0.0, 1.0, high_included=False)
    if len(shapes) < 2:
        raise ValueError("distribution='dense_output' leaves nothing sparse: net_arch=[] has no hidden layer")
    (*hidden, (outputs, units)) = shapes
    return [out * max(round((1.0 - sparsity) * into), 1) for out, into in hidden] + [outputs * units]


DISTRIBUTIONS: dict[str, Callable[[Sequence[Shape], float], list[int]]] = {
    "erdos_renyi": erdos_renyi,
    "erk": erdos_renyi,
    "uniform": uniform,
    "dense_output": dense_output,
}


def find_distribution(given: str | Mapping[str, Sequence[int]], network: str) -> Callable[[Sequence[Shape], float], list[int]]:
    """
    Give what shares out links to the layers of a network.

    :param given: a key of ``DISTRIBUTIONS``; or the number of links of each layer of each network, by its name in the policy
    :param network: its name, as ``"critic.qf0"``
    :raises ValueError: if it is neither, or has not this network
    """
    if not isinstance(given, Mapping):
        return lookup("distribution", given, DISTRIBUTIONS)
    if network not in given:
        raise ValueError(f"distribution names {', '.join(map(repr, given))}, and must have links for {network!r}, too")
    counts = given[network]

    def as_given(shapes: Sequence[Shape], sparsity: float) -> list[int]:
        where = f"distribution of {network}"
        if len(counts) != len(shapes):
            raise ValueError(f"{where}={counts} must have a number of links for each of {len(shapes)} layers")
        return [check_integer(where, count, 1) for count in counts]

    return as_given


def _to_nnz(shapes: Sequence[Shape], sparsities: Sequence[float]) -> list[int]:
    # Zeros are rounded down (as released), so no layer is left without a link.
    return [out * into - int(sparsity * out * into) for (out, into), sparsity in zip(shapes, sparsities, strict=True)]
