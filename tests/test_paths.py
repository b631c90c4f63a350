"""Links on no path from an input to an output: which they are, and what a topology update does with them."""

import itertools

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sb3_rlx2 import RLx2CrossQ, RLx2SAC, RLx2TD3, SparseMLP
from sb3_rlx2.backends.network import LayerSpec
from sb3_rlx2.paths import dead_links, find_paths
from sb3_rlx2.updater import TopologyUpdater
from tests import reference
from tests.checks import assert_sound, sparse_mlps


def make_mlp(widths, links, values=None, backend="masked"):
    """
    :param widths: number of inputs, then of units of each layer
    :param links: per layer a list of (row, column), in the order of positions
    :param values: weights of all links, in that order
    """
    specs = [LayerSpec(into, out, len(own)) for (into, out), own in zip(itertools.pairwise(widths), links, strict=True)]
    offsets = [0, *itertools.accumulate(spec.size for spec in specs)]
    index = th.tensor(
        [
            offset + row * spec.in_features + column
            for offset, spec, own in zip(offsets, specs, links, strict=False)
            for row, column in own
        ]
    )
    weights = th.linspace(1, 2, len(index)) if values is None else th.tensor(values)
    bias = th.linspace(-1, 1, sum(widths[1:]))
    return SparseMLP(specs, weights, bias, index, nn.ReLU(), nn.Identity(), backend)


def pairs(mlp):
    """Give the links of each layer as (row, column)."""
    return [
        [divmod(position, layer.in_features) for position in mlp.layer_index(number).tolist()]
        for number, layer in enumerate(mlp.layers)
    ]


# 2 inputs, hidden layers of 3 and 3 units, 2 outputs. Unit 1 of the first layer has no link in, so no input reaches it; unit 2
# of the first layer has none out, and unit 2 of the second none out.
#   in 0 -> a0 -> b0 -> out 0      in 1 -> a2
#           a1 -> b1 -> out 1      a0   -> b2
LINKS = [[(0, 0), (2, 1)], [(0, 0), (1, 1), (2, 0)], [(0, 0), (1, 1)]]


def test_hand_worked():
    paths = find_paths(make_mlp([2, 3, 3, 2], LINKS))
    assert [reached.tolist() for reached in paths.reached] == [[1, 1], [1, 0, 1], [1, 0, 1], [1, 0]]
    # in 1 -> a2 ends there; a1 -> b1 -> out 1 starts from nothing; a0 -> b2 ends there
    assert [alive.tolist() for alive in paths.alive] == [[1, 0], [1, 0, 0], [1, 0]]
    assert dead_links(make_mlp([2, 3, 3, 2], LINKS)) == [1, 2, 1]


def test_one_layer_has_no_dead_link():
    assert dead_links(make_mlp([3, 2], [[(0, 1), (1, 0), (1, 2)]])) == [0]


@st.composite
def networks(draw):
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    links = []
    for into, out in itertools.pairwise(widths):
        positions = draw(st.sets(st.integers(0, into * out - 1), min_size=1))
        links.append([divmod(position, into) for position in sorted(positions)])
    return widths, links


@given(network=networks())
def test_against_reference(network):
    widths, links = network
    paths = find_paths(make_mlp(widths, links))
    alive = reference.alive_links(widths, links)
    for own, mask, expected in zip(links, paths.alive, alive, strict=True):
        assert {link for link, lives in zip(own, mask.tolist(), strict=True) if lives} == expected
    assert [set(units.nonzero().flatten().tolist()) for units in paths.reached] == reference.reached_units(widths, links)
    assert paths.dead == [len(own) - len(lives) for own, lives in zip(links, alive, strict=True)]


@given(network=networks(), seed=st.integers(0, 9))
def test_links_that_no_output_reads_do_not_count(network, seed):
    """What has no path to an output may be anything; where everything is reached, that is all that is dead."""
    widths, links = network
    th.manual_seed(seed)
    mlp = make_mlp(widths, links, values=th.randn(sum(map(len, links))).tolist())
    x, paths = th.randn(5, widths[0]), find_paths(mlp)
    before = mlp(x)
    with th.no_grad():
        for number, (own, alive) in enumerate(zip(links, paths.alive, strict=True)):
            for position, (_, column) in enumerate(own):
                if paths.reached[number][column] and not alive[position]:
                    mlp.values[mlp.slices[number]][position] = th.randn(())
    assert th.equal(mlp(x), before)


def evolve(mlp, drop_fraction, topology="rigl", target=None, drop_dead_links=True, warm_up=1):
    """Take steps of Adam, the last of which is a topology update; give what was before, and the scores for growth."""
    adam = th.optim.Adam(mlp.parameters(), lr=0.01)
    updater = TopologyUpdater(th.Generator().manual_seed(0))
    updater.register("actor", [mlp], [] if target is None else [target], adam)
    updater.configure(topology, drop_fraction, warm_up + 1, drop_dead_links)
    x = th.randn(6, mlp.layers[0].in_features)
    for _ in range(warm_up + 1):
        adam.zero_grad()
        mlp(x).square().sum().backward()
        before = state_of(mlp, adam, target)
        if topology == "rigl" and mlp.records_dense_gradient:
            before["scores"] = [mlp.dense_gradient(number).abs().flatten().tolist() for number in range(len(mlp.layers))]
        adam.step()
    return before, state_of(mlp, adam, target)


def state_of(mlp, adam, target):
    per_link = [mlp.values.detach(), *([] if target is None else [target.values.detach()])]
    per_link += [state for state in adam.state[mlp.values].values() if state.numel() > 1 or state.ndim == 1]
    return {"index": mlp.index.tolist(), "links": pairs(mlp), "states": [state.tolist() for state in per_link]}


def test_an_update_drops_all_dead_links_first():
    # Heavy weights do not save them; the drop fraction alone would move none.
    links = [*LINKS[:2], [(0, 0), (1, 1)]]
    mlp = make_mlp([2, 3, 3, 2], links, values=[0.1, 9.0, 0.1, 9.0, 9.0, 0.1, 9.0])
    before, after = evolve(mlp, 0.0)
    kept = [set(old) & set(new) for old, new in zip(before["links"], after["links"], strict=True)]
    assert all((0, 0) in layer for layer in kept)  # the path in 0 -> a0 -> b0 -> out 0
    assert all((1, 1) not in layer for layer in after["links"][1:])  # a1 -> b1 -> out 1, which no input reaches
    assert [len(layer) for layer in after["links"]] == [2, 3, 2]
    sources = [{column for _, column in layer} for layer in after["links"]]
    assert 1 not in sources[1]  # nothing grows from a1,
    assert 1 not in sources[2]  # nor from b1


def test_without_it_heavy_dead_links_stay():
    mlp = make_mlp([2, 3, 3, 2], LINKS, values=[0.1, 9.0, 0.1, 9.0, 9.0, 0.1, 9.0])
    before, after = evolve(mlp, 0.0, drop_dead_links=False)
    assert after["index"] == before["index"]


def test_full_layers_keep_their_dead_links():
    full = [[(0, 0)], [(row, column) for row in range(2) for column in range(3)]]
    mlp = make_mlp([1, 3, 2], full)
    assert dead_links(mlp) == [0, 4]
    _, after = evolve(mlp, 0.5)
    assert after["links"][1] == full[1]


@given(network=networks(), drop_fraction=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99))
def test_update_against_reference(network, drop_fraction, seed):
    widths, links = network
    th.manual_seed(seed)
    values = th.randn(sum(map(len, links))).tolist()
    mlp, target = make_mlp(widths, links, values), make_mlp(widths, links, values)
    before, after = evolve(mlp, drop_fraction, target=target)
    alive, reached = reference.alive_links(widths, links), reference.reached_units(widths, links)
    expected, start = [], 0
    for number, (own, (into, out)) in enumerate(zip(links, itertools.pairwise(widths), strict=True)):
        magnitude = [
            abs(value) if link in alive[number] else -1.0
            for link, value in zip(own, before["states"][0][start : start + len(own)], strict=True)
        ]
        scores = [
            score if position % into in reached[number] else -1.0 for position, score in enumerate(before["scores"][number])
        ]
        k = max(int(drop_fraction * len(own)), len(own) - len(alive[number]))
        index = [row * into + column for row, column in own]
        new = index if len(own) == into * out else reference.drop_and_grow(index, magnitude, scores, k)
        expected.append([divmod(position, into) for position in new])
        start += len(own)
    assert after["links"] == expected
    assert [len(layer) for layer in after["links"]] == [len(layer) for layer in links]
    assert after["index"] == sorted(set(after["index"]))
    if after["index"] != before["index"]:  # else the optimizer's step was taken
        assert target.index.tolist() == after["index"]
        for old, new in zip(before["states"], after["states"], strict=True):
            was = dict(zip(before["index"], old, strict=True))
            assert new == [was.get(position, 0.0) for position in after["index"]]


@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC, RLx2CrossQ])
@pytest.mark.parametrize("topology", ["rigl", "set"])
def test_training_gets_rid_of_them(algorithm, topology):
    """Nearly: an update cuts the paths of some links that were alive before it, and those go at the next."""
    settings = {"learning_starts": 20, "batch_size": 16, "buffer_size": 1000, "seed": 0, "update_interval": 4}
    settings |= {"topology": topology, "drop_dead_links": True, "policy_kwargs": {"net_arch": [32, 32]}}
    model = algorithm("MlpPolicy", "Pendulum-v1", **settings)
    first = movable(model)
    model.learn(20 + 80)
    assert movable(model) <= first / 4
    assert_sound(model.policy)


def movable(model):
    """Count dead links in layers that are not full."""
    return sum(
        dead
        for mlp in (*sparse_mlps(model.actor), *sparse_mlps(model.critic))
        for layer, dead in zip(mlp.layers, dead_links(mlp), strict=True)
        if layer.nnz < layer.size
    )
