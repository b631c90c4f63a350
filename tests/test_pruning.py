"""Networks that begin with more links than they are to have: how many leave when, which, and what goes on undisturbed."""

import itertools
from copy import deepcopy
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import StopTrainingOnMaxEpisodes
from torch import nn

from sb3_rlx2 import RLx2CrossQ, RLx2TD3, SparseMLP
from sb3_rlx2.algorithms.policies import start_keyword
from sb3_rlx2.distributions import erdos_renyi
from sb3_rlx2.fast.adam import KernelAdam
from sb3_rlx2.fast.steps import GradientSteps
from sb3_rlx2.topology import TOPOLOGIES, Static
from sb3_rlx2.updater import TopologyUpdater
from tests.checks import assert_equal, assert_sound, learned, pairs
from tests.every import ALGORITHMS, env_for, is_discrete, keywords, small, sparsities


def make_mlp(widths, start, final, backend="masked", seed=0):
    th.manual_seed(seed)
    linears = [nn.Linear(into, out) for into, out in itertools.pairwise(widths)]
    return SparseMLP.from_linears(linears, start, nn.ReLU(), init="random", backend=backend, final_nnz=final)


class Trained:
    """A network, its target, Adam and the updater, without an algorithm around them."""

    def __init__(self, mlp, topology="static", interval=1, drop_fraction=0.5, optimizer=KernelAdam, **kwargs):
        self.mlp, self.target = mlp, deepcopy(mlp)
        self.adam = optimizer(mlp.parameters(), lr=0.01)
        self.updater = TopologyUpdater(th.Generator().manual_seed(0))
        self.updater.register("actor", [mlp], [self.target], self.adam)
        self.updater.configure(topology, drop_fraction, interval, **kwargs)

    def step(self, progress=0.0, prune=True):
        self.updater.advance(progress)
        self.adam.zero_grad()
        x = th.linspace(-1, 1, 4 * self.mlp.layers[0].in_features).reshape(4, -1)
        (self.mlp(x) - 1).square().sum().backward()
        self.adam.step()
        if prune:
            self.updater.prune()
        with th.no_grad():
            for behind, ahead in zip(self.target.parameters(), self.mlp.parameters(), strict=True):
                behind.lerp_(ahead, 0.1)

    def links(self):
        """Give what belongs to each link, by position: weight, target weight, moments."""
        states = [self.mlp.values, self.target.values, *self.moments()]
        assert {tuple(state.shape) for state in states} == {(self.mlp.nnz,)}
        return dict(zip(self.mlp.index.tolist(), zip(*(state.tolist() for state in states), strict=True), strict=True))

    def moments(self):
        return [state for name, state in self.adam.state[self.mlp.values].items() if name != "step"]


# 4 + 16 * (1 - p)^3 links, where p runs from 0 at 20 % of training to 1 at 80 %
@pytest.mark.parametrize(
    ("progress", "nnz"), [(0, 20), (0.2, 20), (0.35, 11), (0.5, 6), (0.65, 4), (0.8, 4), (0.9, 4), (1, 4)]
)
@pytest.mark.parametrize("topology", ["static", "rigl", "set"])
def test_number_of_links_by_hand(progress, nnz, topology):
    trained = Trained(make_mlp([4, 10], [20], [4]), topology)
    trained.step(progress)
    assert (trained.mlp.nnz, trained.target.nnz) == (nnz, nnz)
    assert trained.mlp.layers[0].nnz == len(trained.mlp.index) == nnz


def test_each_layer_has_its_own():
    trained = Trained(make_mlp([4, 10, 3], [20, 30], [4, 14]), prune_begin=0.0, prune_end=0.5)
    trained.step(0.25)
    assert [layer.nnz for layer in trained.mlp.layers] == [6, 16]  # 4 + 16 / 8, 14 + 16 / 8
    assert trained.mlp.slices == [slice(0, 6), slice(6, 22)]
    trained.step(1.0)
    assert [layer.nnz for layer in trained.mlp.layers] == [4, 14]


def test_links_leave_at_topology_updates():
    trained, counts = Trained(make_mlp([4, 10], [20], [4]), interval=3), []
    for _ in range(7):
        trained.step(0.5)
        counts.append(trained.mlp.nnz)
    assert counts == [20, 20, 6, 6, 6, 6, 6]


@pytest.mark.parametrize("interval", [3, 10**6])
def test_the_last_leave_when_pruning_ends_however_long_the_interval(interval):
    trained = Trained(make_mlp([4, 10], [20], [4]), "rigl", interval)
    for _ in range(4):
        trained.step(0.5)
    trained.step(0.8)  # decided in this step, done in the next
    trained.step(0.8)
    assert trained.mlp.nnz == 4
    assert trained.updater.networks["actor"].updates == (interval == 3)  # at 50 %; at 80 % the drop fraction moves none


@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("optimizer", [KernelAdam, th.optim.RMSprop])
def test_only_the_smallest_leave_and_the_others_keep_all_they_have(backend, optimizer):
    trained = Trained(make_mlp([4, 10, 3], [20, 30], [4, 14], backend), optimizer=optimizer)
    values, identity = trained.mlp.values, id(trained.mlp.index)
    for progress in (0.3, 0.4, 0.6, 0.9):
        weights = [weight.detach().abs().flatten() for weight in trained.mlp.dense_weights()]  # chosen before the step
        trained.step(progress, prune=False)
        before = trained.links()
        trained.updater.prune()
        after = trained.links()
        assert after == {position: before[position] for position in after}
        for number, (layer, weight) in enumerate(zip(trained.mlp.layers, weights, strict=True)):
            assert set(trained.mlp.layer_index(number).tolist()) == set(weight.topk(layer.nnz).indices.tolist())
        assert trained.mlp.values is values
        assert values.grad is None
        assert id(trained.mlp.index) == id(trained.target.index) == identity
    assert [layer.nnz for layer in trained.mlp.layers] == [4, 14]


def test_a_static_topology_is_pruned_and_takes_every_step():
    trained = Trained(make_mlp([4, 10], [20], [4]))
    for progress in (0.3, 0.5, 0.9, 1.0):
        before = trained.mlp.values.detach().clone()
        trained.step(progress, prune=False)
        assert not th.equal(before, trained.mlp.values)
        trained.updater.prune()
    assert trained.adam.state[trained.mlp.values]["step"] == 4
    assert trained.updater.networks["actor"].updates == 0


@pytest.mark.parametrize("topology", ["rigl", "set"])
def test_what_an_update_grows_does_not_leave(topology):
    """Grown links have weight 0: they would be the first."""
    trained = Trained(make_mlp([4, 10], [30], [12]), topology)
    trained.step()
    before = set(trained.links())
    trained.step(0.35, prune=False)
    grown = set(trained.links()) - before
    assert len(trained.mlp.index) == 30
    trained.updater.prune()
    assert trained.mlp.nnz == 20  # 12 + 18 * 27 / 64 = 19.6
    assert grown
    assert grown <= set(trained.links())


def test_links_leave_before_others_move():
    # 8 links of magnitudes 1 to 8; 2 leave, and half of the other 6 move; scores favour 9, then 2, then 8
    method = Scripted([0, 0, 7, 0, 0, 0, 0, 0, 5, 9, 1, 0])
    mlp = make_mlp([3, 4], [8], [4])
    mlp.set_links(th.arange(8), th.arange(1.0, 9.0))
    trained = Trained(mlp, prune_begin=0.0, prune_end=0.5)
    trained.updater.method, trained.updater.networks["actor"].moves_next = method, True
    trained.updater.initial_drop_fraction = 1.0
    trained.step(0.25 * (1 - 0.5 ** (1 / 3)) * 2, prune=False)  # half of 4 links are left to leave
    kept_share = trained.updater.drop_fraction
    k = int(kept_share * 6)
    assert k == 5
    trained.updater.prune()
    # 0 and 1 leave; 2 to 6 are dropped, 7 is kept; then 9, 2, 8 and 10 grow, and the first of those of score 0: not 0 or 1
    assert trained.mlp.index.tolist() == [2, 3, 7, 8, 9, 10]


@dataclass(frozen=True)
class Scripted:
    """Growth by a list."""

    scores: list = field(default_factory=list)
    evolves: ClassVar[bool] = True
    uses_gradient: ClassVar[bool] = False

    def grow_scores(self, size, dense_gradient, generator):
        return th.tensor(self.scores, dtype=th.float32)


@dataclass(frozen=True)
class OneShot(Static):
    """A toy: half of the links that are to leave do so at once, in the middle, and it says nothing else."""

    def live_links(self, start, final, progress):
        return (start + final) // 2 if progress >= 0.5 else 10 * start


def test_a_method_may_say_how_many_links_there_are(monkeypatch):
    monkeypatch.setitem(TOPOLOGIES, "one shot", OneShot())
    trained, counts = Trained(make_mlp([4, 10], [20], [4]), "one shot", prune_begin=0.0, prune_end=0.5), []
    for progress in (0.0, 0.2, 0.25, 0.3, 0.5):
        trained.step(progress)
        counts.append(trained.mlp.nnz)
    assert counts == [20, 20, 12, 12, 4]


def most_sensitive(mlp, loss):
    """SNIP, one link after the other: the best of each layer, then the best of all, by autograd of the dense weights."""
    weights = [weight.detach().requires_grad_() for weight in mlp.dense_weights()]
    gradients = th.autograd.grad(loss(weights), weights)
    scores = [abs(w * g) for w, g in zip(th.cat([w.flatten() for w in weights]).tolist(),
                                         th.cat([g.flatten() for g in gradients]).tolist(), strict=True)]  # fmt: skip
    best = [max(range(*ends), key=scores.__getitem__) for ends in itertools.pairwise(mlp.offsets)]
    others = sorted(set(range(mlp.size)) - set(best), key=lambda at: -scores[at])
    return sorted(best + others[: sum(mlp.final_nnz) - len(best)])


@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("final", [[7, 9], [1, 1]])
def test_snip_keeps_what_the_loss_is_most_sensitive_to(backend, final):
    mlp = make_mlp([4, 10, 3], [40, 30], final, backend)
    trained, first, bias = Trained(mlp, "snip", interval=10**6), mlp.values.detach().clone(), mlp.bias.detach().clone()
    x = th.linspace(-1, 1, 4 * 4).reshape(4, -1)  # as in `step`

    def loss(weights):
        hidden = th.relu(x @ weights[0].T + bias[:10])
        return (hidden @ weights[1].T + bias[10:] - 1).square().sum()

    expected = most_sensitive(mlp, loss)
    trained.step()
    assert mlp.index.tolist() == trained.target.index.tolist() == expected
    assert mlp.values.tolist() == first[expected].tolist()  # no step was taken
    assert th.equal(mlp.bias, bias)
    for progress in (0.1, 0.5, 1.0):
        trained.step(progress)
    assert mlp.index.tolist() == expected
    assert not th.equal(mlp.values, first[expected])
    assert trained.updater.networks["actor"].updates == 0


def test_snip_takes_no_step_before_the_links_have_left():
    trained = Trained(make_mlp([4, 10], [40], [4]), "snip")
    before = trained.mlp.values.detach().clone()
    for _ in range(3):
        trained.step(prune=False)
    assert th.equal(trained.mlp.values, before)
    assert not trained.adam.state[trained.mlp.values]
    (leaving,) = trained.updater.networks["actor"].leaving
    trained.step()
    assert trained.mlp.nnz == 4
    assert not th.isin(trained.mlp.index, leaving).any()


def test_dead_links_leave_first():
    # in 0 -> a0 -> out and in 1 -> a0; a1 has no link in, a2 none out; all dead links are heavy
    mlp = make_mlp([2, 3, 1], [3, 2], [2, 1])
    mlp.set_links(th.tensor([0, 1, 5, 6, 7]), th.tensor([0.1, 0.2, 9.0, 0.1, 9.0]))
    trained = Trained(mlp, drop_dead_links=True)
    trained.step(0.9)
    assert trained.mlp.index.tolist() == [0, 1, 6]


def test_a_frozen_network_keeps_its_links():
    trained = Trained(make_mlp([4, 10], [20], [4]))
    trained.mlp.values.requires_grad_(False)
    for progress in (0.5, 0.9, 0.9):
        trained.step(progress)
    assert trained.mlp.nnz == 20
    assert not trained.adam.state[trained.mlp.values]


def test_without_pruning_nobody_is_chosen():
    trained = Trained(make_mlp([4, 10], [20], None), "rigl")
    assert trained.mlp.final_nnz == (20,)
    for progress in (0.5, 0.9):
        trained.step(progress, prune=False)
        assert trained.updater.networks["actor"].leaving is None


@pytest.mark.parametrize("moves", [False, True])
def test_steps_of_other_lengths_find_their_memory(moves):
    """The allocator gives new arrays the addresses of old ones; nothing may be taken for what lay there."""
    csr, masked = (
        Trained(make_mlp([30, 40, 20], [900, 700], [40, 30], backend), "set" if moves else "static")
        for backend in ("csr", "masked")
    )
    for step in range(60):
        for trained in (csr, masked):
            trained.step(step / 60)
        np.testing.assert_allclose(csr.mlp.values.detach(), masked.mlp.values.detach(), atol=2e-3)
        x = th.randn(3, 30)
        th.testing.assert_close(csr.mlp(x), as_masked(csr.mlp)(x), atol=1e-5, rtol=1e-5)
        th.testing.assert_close(csr.target(x), as_masked(csr.target)(x), atol=1e-5, rtol=1e-5)
    assert csr.mlp.nnz == 70


def as_masked(mlp):
    other = deepcopy(mlp)
    other.backend = "masked"
    return other


class Session:
    """What may happen to a network in any order."""

    def __init__(self, backend, topology):
        self.settings, self.progress, self.saved = (backend, topology), 0.0, None
        self.trained = self.make()

    def make(self, seed=0):
        backend, topology = self.settings
        return Trained(make_mlp([5, 8, 3], [30, 24], [7, 5], backend, seed), topology, interval=3)

    def step(self, share=0.05):
        self.progress = min(1.0, self.progress + share)
        self.trained.step(self.progress)

    def late_step(self):
        self.step(0.2)

    def update(self):
        for _ in range(3):
            self.trained.step(self.progress)

    def copy(self):
        self.trained = deepcopy(self.trained)

    def save(self):
        self.saved = self.progress, deepcopy(state_of(self.trained)), self.trained.links()

    def load(self):
        """Into the network, which may have fewer links by now, and into a new one, which has more."""
        if self.saved is None:
            return
        self.progress, state, links = self.saved
        fresh = self.make(seed=1)
        for one in (self.trained, fresh):
            load(one, state)
            assert one.links() == links
            one.step(self.progress)
        assert fresh.links() == self.trained.links()


@given(
    operations=st.lists(st.sampled_from(["step", "late_step", "update", "save", "load", "copy"]), max_size=8),
    backend=st.sampled_from(["csr", "masked"]),
    topology=st.sampled_from(["static", "set"]),
)
@settings(max_examples=100)
def test_any_order_of_pruning_saving_and_loading(operations, backend, topology):
    session, x = Session(backend, topology), th.ones(2, 5)
    for operation in operations:
        getattr(session, operation)()
        mlp, target = session.trained.mlp, session.trained.target
        assert (mlp.index.diff() > 0).all()
        counts = [((mlp.index >= low) & (mlp.index < high)).sum() for low, high in itertools.pairwise(mlp.offsets)]
        assert [layer.nnz for layer in mlp.layers] == counts
        assert target.index is mlp.index
        assert target.layers == mlp.layers
        for one in (mlp, target):
            th.testing.assert_close(one(x), as_masked(one)(x))


def state_of(trained):
    return [part.state_dict() for part in (trained.mlp, trained.target, trained.updater, trained.adam)]


def load(trained, states):
    for part, state in zip((trained.mlp, trained.target, trained.updater, trained.adam), states, strict=True):
        part.load_state_dict(deepcopy(state))


def test_moments_of_other_links_are_refused():
    early, late = (Trained(make_mlp([4, 10], [20], [4], "csr")) for _ in range(2))
    for _ in range(2):
        early.step(0.1)
        late.step(0.9)
    early.mlp.load_state_dict(late.mlp.state_dict())
    early.target.load_state_dict(late.target.state_dict())
    with pytest.raises(RuntimeError, match="the optimizer's moments are of another number of links"):
        early.step(0.1)


@pytest.mark.parametrize("counts", [([21], [21]), ([3], [3]), ([12], [12])])
def test_networks_that_never_have_the_saved_links_refuse_them(counts):
    saved = make_mlp([4, 10], *counts).state_dict()
    if counts == ([12], [12]):
        make_mlp([4, 10], [20], [4]).load_state_dict(saved)
        with pytest.raises(RuntimeError, match="holds 12 live weights"):
            make_mlp([4, 10], [20], None).load_state_dict(saved)
    else:
        with pytest.raises(RuntimeError, match=r"live weights, \[\d+\] in the layers of this network, which has \[20\]"):
            make_mlp([4, 10], [20], [4]).load_state_dict(saved)


@pytest.mark.parametrize("final", [0, 21])
def test_final_numbers_are_checked(final):
    with pytest.raises(ValueError, match=rf"final_nnz={final} of layer 0 must lie in \[1, 20\]"):
        make_mlp([4, 10], [20], [final])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"prune_begin": 0.8}, "prune_begin=0.8 must be < prune_end=0.8"),
        ({"prune_end": 1.0}, r"prune_end=1.0 must be a number in \[0, 1\)"),
        ({"prune_begin": -0.1}, r"prune_begin=-0.1 must be a number in \[0, 1\]"),
    ],
)
def test_the_time_of_pruning_is_checked(argument, message):
    with pytest.raises(ValueError, match=message):
        TopologyUpdater(th.Generator()).configure("rigl", 0.5, 10, **argument)


SHAPES = [(32, 4), (32, 32), (1, 32)]  # of a critic of `build`


def test_an_agent_may_begin_denser():
    critic = build(RLx2TD3).critic.qf0
    assert [layer.nnz for layer in critic.layers] == erdos_renyi(SHAPES, 0.3)
    assert critic.final_nnz == tuple(erdos_renyi(SHAPES, 0.7))
    dense = build(RLx2TD3, critic_start_sparsity=0.0).critic.qf0
    assert dense.nnz == dense.size
    plain = build(RLx2TD3, critic_start_sparsity=None).critic.qf0
    assert plain.final_nnz == plain.start_nnz == tuple(erdos_renyi(SHAPES, 0.7))


@pytest.mark.parametrize("name", ["actor", "critic"])
def test_the_sparsity_at_first_is_checked(name):
    with pytest.raises(ValueError, match=f"{name}_start_sparsity=0.95 must be <= {name}_sparsity=0"):
        build(RLx2TD3, **{f"{name}_start_sparsity": 0.95})
    with pytest.raises(ValueError, match=rf"{name}_start_sparsity=-1 must be a number in \[0, 1\]"):
        build(RLx2TD3, **{f"{name}_start_sparsity": -1})


# Algorithms: between steps the callback calls `prune`.

SETTINGS = {
    "seed": 0,
    "learning_starts": 40,
    "batch_size": 64,
    "buffer_size": 400,
    "buffer_min_size": 50,
    "update_interval": 5,
    "train_freq": 1,
}


def starts(algorithm, share):
    return dict.fromkeys(map(start_keyword, keywords(algorithm)), share)


def build(algorithm, backend="csr", start=0.3, env=None, **kwargs):
    own = sparsities(algorithm, 0.8, 0.7) | starts(algorithm, start) | {"policy_kwargs": small(algorithm, net_arch=[32, 32])}
    env = env or ("CartPole-v1" if is_discrete(algorithm) else "Pendulum-v1")
    return algorithm("MlpPolicy", env, backend=backend, **(SETTINGS | own | kwargs))


def final_counts(model):
    return {name: list(mlp.final_nnz) for name, mlp, _, _ in pairs(model.policy)}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize(("topology", "gradient_steps"), [("rigl", 1), ("static", 7)])
def test_agents_end_at_their_sparsity(algorithm, backend, topology, gradient_steps):
    model = build(algorithm, backend, topology=topology, gradient_steps=gradient_steps)
    first = {name: mlp.nnz for name, mlp, _, _ in pairs(model.policy)}
    model.learn(40 + 60)
    assert_sound(model.policy, final_counts(model))
    assert all(mlp.nnz < first[name] for name, mlp, _, _ in pairs(model.policy))
    plain = build(algorithm, backend, start=None)
    assert final_counts(plain) == final_counts(model)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_agents_of_snip(algorithm, tmp_path):
    model = build(algorithm, topology="snip", gradient_steps=3, start=0.0)
    final = [sum(mlp.final_nnz) for _, mlp, _, _ in pairs(model.policy)]
    with pytest.warns(
        UserWarning, match=r"topology='snip' takes links away behind the first train\(\): its 3 gradient steps are"
    ):
        model.learn(40 + 10)
    counts = [[layer.nnz for layer in mlp.layers] for _, mlp, _, _ in pairs(model.policy)]
    assert list(map(sum, counts)) == final
    assert counts != list(final_counts(model).values())
    model.save(tmp_path / "agent.zip")
    loaded = algorithm.load(tmp_path / "agent.zip", env=model.get_env())
    assert [[layer.nnz for layer in mlp.layers] for _, mlp, _, _ in pairs(loaded.policy)] == counts
    loaded.learn(20, reset_num_timesteps=False)
    assert [[layer.nnz for layer in mlp.layers] for _, mlp, _, _ in pairs(loaded.policy)] == counts


def test_snip_needs_all_links_to_choose_from():
    for start in (None, 0.3):
        with pytest.raises(ValueError, match=r"topology='snip' needs critic_start_sparsity=0\.0: it chooses among all links"):
            build(RLx2TD3, topology="snip", start=0.0, critic_start_sparsity=start).learn(41)
    build(RLx2TD3, topology="snip", start=0.0, critic_sparsity=0.0, critic_start_sparsity=None).learn(41)


@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each is not RLx2CrossQ])
@pytest.mark.parametrize("topology", ["rigl", "static", "snip"])
def test_steps_in_arrays_equal_the_hosts(algorithm, topology):
    runs = []
    for arrays in (True, False):
        model = build(algorithm, topology=topology, learning_starts=100, start=0.0 if topology == "snip" else 0.3)
        if not arrays:
            model.arrays = False
        model.set_random_seed(0)
        model.learn(100 + 25)
        if topology != "snip":  # whose layers have other numbers
            assert_sound(model.policy, final_counts(model))
        assert isinstance(model._steps, GradientSteps) == arrays
        runs.append(model.policy.state_dict())
    for name, value in runs[0].items():
        if isinstance(value, th.Tensor):
            np.testing.assert_allclose(value, runs[1][name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_a_run_saved_in_the_middle_goes_on_to_the_same(algorithm, backend, tmp_path):
    outcomes = []
    for saves in (False, True):
        model = build(algorithm, backend, env=env_for(algorithm)())
        model.set_random_seed(0)
        model.learn(150, callback=StopTrainingOnMaxEpisodes(10))  # of 9 steps
        counts = [mlp.nnz for _, mlp, _, _ in pairs(model.policy)]
        assert all(sum(mlp.final_nnz) < mlp.nnz < sum(mlp.start_nnz) for _, mlp, _, _ in pairs(model.policy))
        if saves:
            model.save(tmp_path / "agent")
            model.save_replay_buffer(tmp_path / "buffer")
            model = algorithm.load(tmp_path / "agent", env=model.get_env())
            model.load_replay_buffer(tmp_path / "buffer")
            assert [mlp.nnz for _, mlp, _, _ in pairs(model.policy)] == counts
        model._last_obs = None  # as after `load` with an environment
        model.set_random_seed(1)
        model.learn(150 - 90, reset_num_timesteps=False)
        assert_sound(model.policy, final_counts(model))
        outcomes.append(learned(model))
    assert_equal(*outcomes)
