"""Structures: which links a network begins with, gets by the warm-up, or keeps, and hidden layers that do not learn."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import ConvertCallback
from torch import nn
from torch.nn import functional as F

from sb3_rlx2 import RLx2Callback, RLx2DQN, RLx2TD3, SparseDQNPolicy, SparseMLP
from sb3_rlx2.backends import csr
from sb3_rlx2.distributions import dense_output
from sb3_rlx2.inits import INITS, Place, Surroundings
from sb3_rlx2.kernels.tiling import Workspace
from sb3_rlx2.metrics import pass_flops
from sb3_rlx2.predictive import learn_predictions, varying
from sb3_rlx2.topology import TOPOLOGIES
from tests.envs import DriftEnv, PixelEnv
from tests.every import ALGORITHMS, env_for, small, sparsities
from tests.test_sparse_mlp import make_mlp

Pixels = partial(PixelEnv, (5, 5, 2), bool)
SMALL = {
    "policy_kwargs": {"net_arch": [18]},
    "distribution": "dense_output",
    "sparsity": 1 - 18 / 50,
    "topology": "static",
    "learning_starts": 50,
    "buffer_size": 2_000,
    "buffer_min_size": 100,
    "seed": 0,
    "device": "cpu",
}


def place(out, into, nnz, layer=0, **surroundings):
    weights = [th.randn(out, into)] if layer == 0 else [th.randn(into, 3), th.randn(out, into)]
    return Place(layer, weights, nnz, th.Generator().manual_seed(0), Surroundings(**surroundings))


def links_of_units(mlp, layer=0):
    counts = th.bincount(mlp.layer_index(layer) // mlp.layers[layer].in_features, minlength=mlp.layers[layer].out_features)
    return counts.tolist()


def learn_until(model, step):
    """Train as if it went on, up to a step."""
    stop = ConvertCallback(lambda _locals, _globals: model.num_timesteps < step)
    return model.learn(model.num_timesteps + 10_000, stop, reset_num_timesteps=False)


def weights_by_position(model):
    mlp = model.policy.q_net.q_net
    return dict(zip(mlp.index.tolist(), mlp.values.tolist(), strict=True))


def rows(positions, out, into):
    mask = th.zeros(out * into, dtype=th.bool)
    mask[positions] = True
    return mask.view(out, into)


# inits


def test_fan_in_shares_links_out_evenly():
    mask = rows(INITS["fan_in"](place(4, 9, 14)), 4, 9)
    assert mask.sum(1).tolist() == [4, 4, 3, 3]
    assert not th.equal(mask[0], mask[1])


def test_fan_in_with_fewer_links_than_units():
    assert rows(INITS["fan_in"](place(4, 9, 3)), 4, 9).sum(1).tolist() == [1, 1, 1, 0]


def test_dense_output_by_hand():
    # 0.36 of 50 inputs are 18, of 7 units 2.52, so 3; the output layer has all
    assert dense_output([(7, 50), (4, 7), (2, 4)], 0.64) == [7 * 18, 4 * 3, 8]
    assert dense_output([(1024, 400), (6, 1024)], 0.91) == [36_864, 6_144]
    assert dense_output([(3, 10), (2, 3)], 0.99) == [3, 6]  # a link for each unit
    with pytest.raises(ValueError, match=r"distribution='dense_output' leaves nothing sparse: net_arch=\[\] has no hidden"):
        dense_output([(3, 10)], 0.5)


@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("channels_first", [False, True])
def test_spatial_with_a_convolutions_values_is_the_convolution(backend, channels_first):
    height, width, channels, filters, side = 6, 7, 3, 4, 3
    conv = nn.Conv2d(channels, filters, side)
    patches = (height - side + 1) * (width - side + 1)
    grid = th.arange(height * width * channels)
    grid = grid.view(channels, height, width).permute(1, 2, 0) if channels_first else grid.view(height, width, channels)
    hidden = nn.Linear(grid.numel(), filters * patches)
    last = nn.Linear(filters * patches, filters * patches)
    nn.init.eye_(last.weight)  # so that the network gives what its hidden layer does
    nn.init.zeros_(last.bias)
    nnz = [filters * patches * channels * side**2, last.weight.numel()]
    mlp = SparseMLP.from_linears(
        [hidden, last], nnz, nn.ReLU(), init="spatial", backend=backend, surroundings=Surroundings(grid=grid)
    )
    with th.no_grad():
        # in the order of its positions a unit's inputs are the kernel's, channels last or first as the grid is
        kernel = conv.weight if channels_first else conv.weight.permute(0, 2, 3, 1)
        mlp.values[: nnz[0]] = kernel.reshape(filters, 1, -1).expand(-1, patches, -1).flatten()
        mlp.bias[: filters * patches] = conv.bias.repeat_interleave(patches)
    images = th.randn(9, channels, height, width)
    flat = (images if channels_first else images.permute(0, 2, 3, 1)).flatten(1)
    np.testing.assert_allclose(mlp(flat).detach(), F.relu(conv(images)).flatten(1).detach(), atol=1e-6)


def test_spatial_of_a_policy():
    model = RLx2DQN("MlpPolicy", Pixels(), init="spatial", **(SMALL | {"sparsity": 1 - 9 / 25}))
    mlp = model.policy.q_net.q_net
    units = rows(mlp.layer_index(0), 18, 50).view(18, 5, 5, 2)
    assert links_of_units(mlp) == [18] * 18
    assert units[0, :3, :3].all()  # unit 0 reads the patch in the corner, unit 1 the one beside it
    assert units[1, :3, 1:4].all()
    assert units[9].equal(units[0])  # there are nine patches
    assert links_of_units(mlp, 1) == [18] * 3


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (place(4, 11, 16, reads="observations of shape (11,)"), r"reads 11 features of observations of shape \(11,\), not"),
        (place(4, 6, 8, layer=1, grid=th.arange(3).view(1, 1, 3)), "layer 1 reads 6 features of hidden units, not"),
        (
            place(1024, 400, 40_960, grid=th.arange(400).view(10, 10, 4)),
            r"gives each of 1024 units 40 links, which is no square patch of a 10x10x4 grid; .* with sparsity=0.91 gives 3x3",
        ),
    ],
)
def test_spatial_refuses(given, match):
    with pytest.raises(ValueError, match=match):
        INITS["spatial"](given)


def test_spatial_refuses_critics():
    chosen = {name: SMALL[name] for name in ("policy_kwargs", "distribution")} | {"actor_sparsity": 1 - 9 / 25}
    with pytest.raises(ValueError, match=r"needs a flat image: layer 0 reads 52 features of observations and actions, not"):
        RLx2TD3("MlpPolicy", DriftEnv((5, 5, 2)), init="spatial", **chosen)


# the links of a saved agent


@pytest.fixture
def agent(tmp_path):
    def make(**kwargs):
        model = RLx2DQN("MlpPolicy", Pixels(), **(SMALL | kwargs))
        model.save(tmp_path / "agent.zip")
        return model

    return make


def test_ticket_has_the_links_and_by_the_same_seed_the_weights(agent, tmp_path):
    winner = agent(topology="set", update_interval=10)
    first = weights_by_position(winner)
    winner.learn(200).save(tmp_path / "agent.zip")
    index = winner.policy.q_net.q_net.index
    for seed in (0, 1):
        ticket = RLx2DQN("MlpPolicy", Pixels(), init=str(tmp_path / "agent.zip"), **(SMALL | {"seed": seed}))
        assert th.equal(ticket.policy.q_net.q_net.index, index)
        same = [value == first[at] for at, value in weights_by_position(ticket).items() if at in first]
        assert all(same) if seed == 0 else not any(same)


def test_ticket_of_a_dense_layer_has_each_units_largest(agent, tmp_path):
    dense = agent(sparsity=0.0)
    ticket = RLx2DQN("MlpPolicy", Pixels(), init=str(tmp_path / "agent.zip"), **SMALL)
    weight = dense.policy.q_net.q_net.dense_weights()[0].detach().abs()
    expected = th.zeros_like(weight, dtype=th.bool).scatter(1, weight.topk(18, dim=1).indices, True)
    assert th.equal(rows(ticket.policy.q_net.q_net.layer_index(0), 18, 50), expected)


def test_what_has_a_ticket_needs_its_file_no_more(agent, tmp_path):
    agent()
    path = str(tmp_path / "agent.zip")
    ticket = RLx2DQN("MlpPolicy", Pixels(), init=path, **SMALL)
    ticket.save(tmp_path / "ticket.zip")
    ticket.policy.save(tmp_path / "policy.pth")
    (tmp_path / "agent.zip").unlink()
    loaded = RLx2DQN.load(tmp_path / "ticket.zip")
    assert loaded.init == path
    for policy in (loaded.policy, SparseDQNPolicy.load(tmp_path / "policy.pth")):
        assert th.equal(policy.q_net.q_net.index, ticket.policy.q_net.q_net.index)


def test_tickets_that_do_not_fit(agent, tmp_path):
    agent()
    path, make = str(tmp_path / "agent.zip"), partial(RLx2DQN, "MlpPolicy")
    with pytest.raises(ValueError, match=r"has 324 links in layer 0 of q_net.q_net, where this network, 50x18 there, has 162"):
        make(Pixels(), init=path, **(SMALL | {"sparsity": 1 - 9 / 50}))
    with pytest.raises(ValueError, match="where this network, 100x18 there, has 648: use the same env, net_arch"):
        make(PixelEnv((5, 10, 2), bool), init=path, **SMALL)
    with pytest.raises(ValueError, match=r"init=.*missing.zip does not exist"):
        make(Pixels(), init=str(tmp_path / "missing.zip"), **SMALL)
    Path(path).write_bytes(Path(path).read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"init=.*agent.zip is damaged"):
        make(Pixels(), init=path, **SMALL)
    DQN("MlpPolicy", Pixels(), buffer_size=10).save(path)
    with pytest.raises(ValueError, match="holds a dense agent, which has no links"):
        make(Pixels(), init=path, **SMALL)
    RLx2TD3("MlpPolicy", DriftEnv(), buffer_size=10, buffer_min_size=10).save(path)
    with pytest.raises(ValueError, match=r"holds no network q_net.q_net"):
        make(Pixels(), init=path, **SMALL)


# hidden layers that do not learn

OPTIMIZERS = {
    "adam": {},
    "rmsprop": {"optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.95, "centered": True, "eps": 0.01}},
    "sgd": {"optimizer_class": th.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}},
}


@pytest.mark.parametrize("topology", ["static", "rigl"])
@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fixed_hidden_weights_stay_to_the_bit(optimizer, backend, topology):
    chosen = {"policy_kwargs": {"net_arch": [18, 12]} | OPTIMIZERS[optimizer], "backend": backend, "topology": topology}
    chosen |= {"update_interval": 7, "target_update_interval": 5, "sparsity": 0.5, "distribution": "uniform"}
    model = RLx2DQN("MlpPolicy", Pixels(), hidden_weights="fixed", hidden_bias=-1.0, **(SMALL | chosen))
    mlp, target = model.policy.q_net.q_net, model.policy.q_net_target.q_net
    assert mlp.frozen_layers == 2
    assert (mlp.bias[:30] == -1.0).all()
    hidden = mlp.hidden_nnz
    before = mlp.values.detach().clone(), mlp.bias.detach().clone(), mlp.index.clone()
    model.learn(200)
    for network in (mlp, target):
        assert th.equal(network.values[:hidden], before[0][:hidden])
        assert th.equal(network.bias[:30], before[1][:30])
        assert not th.equal(network.bias[30:], before[1][30:])
    assert th.equal(mlp.index[:hidden], before[2][:hidden])
    assert th.equal(mlp.index[hidden:], before[2][hidden:]) == (topology == "static")


def test_fixed_hidden_weights_in_arrays_and_after_loading(tmp_path):
    arguments = {"learning_starts": 20, "buffer_size": 500, "buffer_min_size": 50, "update_interval": 10, "arrays": True}
    model = RLx2TD3("MlpPolicy", DriftEnv(), hidden_weights="fixed", seed=0, device="cpu", **arguments)
    networks = [model.policy.actor.mu, *model.policy.critic.q_networks]
    before = [mlp.values[: mlp.hidden_nnz].detach().clone() for mlp in networks]
    learn_until(model, 80).save(tmp_path / "agent.zip")
    loaded = RLx2TD3.load(tmp_path / "agent.zip", env=DriftEnv())
    learn_until(loaded, 160)
    for policy in (model.policy, loaded.policy):
        for mlp, values in zip([policy.actor.mu, *policy.critic.q_networks], before, strict=True):
            assert mlp.frozen_layers == 2
            assert th.equal(mlp.values[: mlp.hidden_nnz], values)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            {"policy_kwargs": {"net_arch": [18], "optimizer_class": th.optim.AdamW}},
            "weight_decay=0.01 moves weights that hidden_weights='fixed' keeps; use an optimizer without it",
        ),
        ({"l1": 1e-3}, "l1=0.001 moves weights that hidden_weights='fixed' keeps, it must be 0"),
        ({"start_sparsity": 0.0}, "start_sparsity=0.0 must be None: it removes links that hidden_weights='fixed' keeps"),
        (
            {"policy_kwargs": {"net_arch": []}, "distribution": "uniform"},
            r"hidden_weights='fixed' is about hidden layers, and net_arch=\[\] has none",
        ),
    ],
)
def test_fixed_refuses(arguments, match):
    with pytest.raises(ValueError, match=match):
        RLx2DQN("MlpPolicy", Pixels(), hidden_weights="fixed", **(SMALL | arguments))


def test_bad_options_of_networks():
    make = partial(RLx2DQN, "MlpPolicy", Pixels())
    with pytest.raises(ValueError, match="hidden_weights='frozen' is unknown; choose one of 'learned', 'fixed'"):
        make(hidden_weights="frozen", **SMALL)
    with pytest.raises(ValueError, match=r"l1=-1 must be a number in \[0, inf\)"):
        make(l1=-1, **SMALL)
    with pytest.raises(ValueError, match="hidden_bias='0' must be a number"):
        make(hidden_bias="0", **SMALL)
    with pytest.raises(ValueError, match=r"l1=0.1 is about hidden layers, and net_arch=\[\] has none"):
        make(l1=0.1, **(SMALL | {"policy_kwargs": {"net_arch": []}, "distribution": "uniform"}))


@pytest.mark.parametrize("frozen", [1, 2])
@pytest.mark.parametrize("with_inputs", [False, True])
def test_gradients_above_frozen_layers(frozen, with_inputs):
    """Those of the layers that learn are as if all did; of the others 0; by the inputs as if all did."""
    gradients = []
    for backend, layers in (("masked", 0), ("masked", frozen), ("csr", frozen)):
        mlp = make_mlp([7, 20, 30, 3], [70, 300, 60], "tanh", backend)
        mlp.freeze(layers)
        x = th.randn(70, 7, generator=th.Generator().manual_seed(0)).requires_grad_(with_inputs)
        mlp(x).square().sum().backward()
        gradients.append((mlp.values.grad, mlp.bias.grad, x.grad))
    values, biases = sum([70, 300][:frozen]), sum([20, 30][:frozen])
    for by_values, by_bias, by_inputs in gradients[1:]:
        assert not by_values[:values].any()
        assert not by_bias[:biases].any()
        th.testing.assert_close(by_values[values:], gradients[0][0][values:])
        th.testing.assert_close(by_bias[biases:], gradients[0][1][biases:])
        if with_inputs:
            th.testing.assert_close(by_inputs, gradients[0][2])


def test_backward_stops_at_frozen_layers():
    mlp = make_mlp([7, 20, 3], [70, 30])
    mlp.freeze(1)
    s, count = csr.structure_of(mlp), 2
    x, activations, gradients = (Workspace(count, size, np.float32) for size in (7, 23, 23))
    gradients.array[:] = np.nan
    gy = np.ones((count, 3, x.array.shape[2]), np.float32)
    into = np.empty(100, np.float32), np.empty(23, np.float32)
    memory, no_gx = np.empty(100, np.float32), np.empty((count, 0, 1), np.float32)
    s.kernels(".mlp:FORWARD").mlp_forward(s.struct.address, x.array, activations.array, np.empty_like(gy), 0, 0, count)
    s.kernels(".mlp:BACKWARD").mlp_backward(
        s.struct.address, x.array, activations.array, gradients.array, memory, gy, *into, no_gx, 0, 0, count
    )
    assert np.isnan(gradients.array[:, :20]).all()  # nobody has computed what nobody needs
    assert not np.isnan(gradients.array[:, 20:]).any()


@pytest.mark.parametrize(
    ("frozen", "training", "through"),
    [(0, 2 * (100 + 100 + 30), 2 * 70), (1, 2 * (100 + 30), 2 * 100)],
)
def test_flops_of_frozen_layers(frozen, training, through):
    """7 to 20 to 3 with 70 and 30 links: forward all, weights that learn, and down to where they end."""
    mlp = make_mlp([7, 20, 3], [70, 30])
    mlp.freeze(frozen)
    flops = pass_flops(mlp)
    assert (flops.training, flops.grad_input) == (training, through)
    assert pass_flops(mlp, dense=True).training == 2 * (200 + 200 + 60)


# L1


@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_l1_adds_the_signs_of_the_hidden_weights(backend):
    stepped = []
    for l1 in (0.0, 0.25):
        chosen = {"policy_kwargs": {"net_arch": [18], "optimizer_class": th.optim.SGD}, "learning_rate": 1.0, "l1": l1}
        model = RLx2DQN("MlpPolicy", Pixels(), **(SMALL | chosen | {"backend": backend, "train_freq": 60}))
        mlp = model.policy.q_net.q_net
        before, hidden = mlp.values.detach().clone(), mlp.hidden_nnz
        model.learn(60)  # one gradient step
        assert model.policy.topology_updater.networks["q_net"].steps == 1
        stepped.append(mlp.values.detach())
    expected = stepped[0][:hidden] - 0.25 * before[:hidden].sign()
    th.testing.assert_close(stepped[1][:hidden], expected)
    assert th.equal(stepped[1][hidden:], stepped[0][hidden:])


def test_topology_updates_know_nothing_of_l1():
    """In their place there is no step, so nothing is penalised either."""
    values = []
    for l1 in (0.0, 0.25):
        chosen = {"topology": "rigl", "update_interval": 1, "l1": l1, "train_freq": 60, "sparsity": 0.5}
        model = RLx2DQN("MlpPolicy", Pixels(), **(SMALL | chosen))
        learn_until(model, 61)
        assert model.policy.topology_updater.networks["q_net"].updates == 1
        values.append(model.policy.q_net.q_net.values.detach())
    assert th.equal(*values)


# links by the warm-up


def shifted_copies(steps, groups, copies, seed=0):
    """Inputs ``x[g, d](t) = s_g(t - d)`` of random signals: each copy but the first says what the next will be."""
    signals = np.random.default_rng(seed).random((steps + copies, groups)) < 0.3
    return th.from_numpy(
        np.stack([signals[copies - d : copies - d + steps] for d in range(copies)], axis=2).reshape(steps, 1, -1)
    )


def test_predictions_of_shifted_copies():
    # What x[g, 3] will be: x[g, 2] in a step, x[g, 1] in two, x[g, 0] in three; what comes then nobody knows.
    x = shifted_copies(20_000, 3, 4)
    weights = learn_predictions(x, th.zeros(20_000, 1, dtype=th.bool), gamma=0.9, trace=0.8, step=0.02).view(3, 4, 3, 4)
    for group in range(3):
        np.testing.assert_allclose(weights[group, 3, group], [0.81, 0.9, 1.0, 0.0], atol=0.12)
        np.testing.assert_allclose(weights[group, 1, group], [1.0, 0.0, 0.0, 0.0], atol=0.12)
        others = [other for other in range(3) if other != group]
        assert weights[group, 3][others].abs().max() < 0.12


def test_predictions_by_hand():
    """Two environments, an episode that ends, all written out."""
    x = th.tensor([[[1.0], [0.0]], [[0.0], [1.0]], [[1.0], [1.0]]])
    ends = th.tensor([[False, True], [False, False], [False, False]])
    centred = x[..., 0] - 2 / 3
    alpha = 0.1 * (1 - 0.9 * 0.5) / float(centred.square().mean()) / 2
    weight, traces = 0.0, [0.0, 0.0]
    for t, over in ((0, (False, True)), (1, (False, False))):
        change = 0.0
        for env in range(2):
            now, after = float(centred[t, env]), float(centred[t + 1, env])
            traces[env] = 0.45 * traces[env] + now
            change += 0.0 if over[env] else (after + 0.9 * weight * after - weight * now) * traces[env]
        traces = [0.0 if stop else trace for stop, trace in zip(over, traces, strict=True)]
        weight += alpha * change
    learned = learn_predictions(x, ends, gamma=0.9, trace=0.5, step=0.1)
    assert learned.item() == pytest.approx(weight, rel=1e-5)


def test_inputs_that_vary():
    x = th.zeros(1_000, 1, 5)
    x[0, 0, 1] = 1.0  # once
    x[:, 0, 2] = 1.0  # always but once
    x[5, 0, 2] = 0.0
    x[:, 0, 3] = 7.0  # always
    x[::2, 0, 4] = 1.0
    assert varying(x, 0.001).tolist() == [False, True, True, False, True]
    assert varying(x, 0.002).tolist() == [False, False, False, False, True]


def test_predictive_structure_of_shifted_copies():
    always_and_never = th.tensor([True, False]).expand(5_000, 1, 2)
    x = th.cat([shifted_copies(5_000, 2, 4), always_and_never], dim=2)
    ends = th.zeros(5_000, 1, dtype=th.bool)
    chosen = TOPOLOGIES["predictive"].warm_up_links(x, ends, [3] * 16, th.Generator())
    mask = rows(chosen, 16, 10)
    assert mask[3].nonzero().flatten().tolist() == [0, 1, 2]
    assert mask[7].nonzero().flatten().tolist() == [4, 5, 6]
    assert th.equal(mask[8:], mask[:8])  # units take the eight signals in turn
    assert not mask[:, 8:].any()


def test_where_few_inputs_vary_others_follow():
    x = th.cat([shifted_copies(2_000, 1, 2), th.zeros(2_000, 1, 6, dtype=th.bool)], dim=2)
    ends = th.zeros(2_000, 1, dtype=th.bool)
    mask = rows(TOPOLOGIES["predictive"].warm_up_links(x, ends, [4] * 3, th.Generator()), 3, 8)
    assert mask.sum(1).tolist() == [4, 4, 4]
    assert mask[:, :2].all()
    assert TOPOLOGIES["predictive"].warm_up_links(x[..., 2:], ends, [4] * 3, th.Generator()).shape == (12,)


class HalfDead(PixelEnv):
    """The last rows are never on."""

    def __init__(self):
        super().__init__((5, 5, 2), bool)

    def observe(self):
        observation = super().observe()
        observation[3:] = False
        return observation


WARM = SMALL | {"learning_starts": 1_000, "sparsity": 1 - 10 / 50, "init": "fan_in"}


@pytest.mark.parametrize("topology", ["active", "predictive"])
@pytest.mark.parametrize("hidden_weights", ["learned", "fixed"])
def test_links_by_the_warm_up(topology, hidden_weights, tmp_path):
    chosen = {"topology": topology, "hidden_weights": hidden_weights, "sparsity": 0.8, "init": "fan_in"}
    model = RLx2DQN("MlpPolicy", HalfDead(), **(WARM | chosen))
    mlp, target = model.policy.q_net.q_net, model.policy.q_net_target.q_net
    before, values = mlp.index.clone(), mlp.values.detach().clone()
    learn_until(model, 1_001)
    assert not th.equal(mlp.index, before)
    assert th.equal(mlp.index, target.index)
    assert th.equal(mlp.values, values)  # each unit keeps its weights
    assert links_of_units(mlp) == [10] * 18
    assert not rows(mlp.layer_index(0), 18, 50)[:, 30:].any()
    assert th.equal(mlp.index[180:], before[180:])
    chosen_links = mlp.index.clone()
    model.save(tmp_path / "agent.zip")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.learn(200, reset_num_timesteps=False)
    assert th.equal(mlp.index, chosen_links)
    resumed = RLx2DQN.load(tmp_path / "agent.zip", env=HalfDead())
    resumed.load_replay_buffer(tmp_path / "buffer.pkl")
    resumed.learn(200, reset_num_timesteps=False)
    assert th.equal(resumed.policy.q_net.q_net.index, chosen_links)
    assert resumed.policy.topology_updater.networks["q_net"].steps > 0


def test_links_by_the_warm_up_of_actor_and_critics():
    arguments = {"distribution": "uniform", "learning_starts": 1_000, "topology": "predictive"}
    model = RLx2TD3("MlpPolicy", DriftEnv(obs_shape=(12,)), seed=0, device="cpu", **arguments)
    networks = [model.policy.actor.mu, *model.policy.critic.q_networks]
    before = [(mlp.index.clone(), links_of_units(mlp)) for mlp in networks]
    learn_until(model, 1_001)
    for mlp, (index, links) in zip(networks, before, strict=True):
        assert not th.equal(mlp.index, index)
        assert links_of_units(mlp) == links


def test_warm_up_that_does_not_do():
    make = partial(RLx2DQN, "MlpPolicy", Pixels())
    with pytest.raises(ValueError, match="learning_starts=50 must be >= 1000: topology='predictive' learns from the warm-up"):
        make(**(SMALL | {"topology": "predictive"})).learn(100)
    trained = make(**SMALL)
    trained.learn(100)
    trained.topology, trained.learning_starts = "active", 1_000
    with pytest.raises(
        ValueError, match=r"'active' chooses links before the first gradient step, and q_net has had \d+: train"
    ):
        trained.learn(2_000)
    sparse = DQN(SparseDQNPolicy, DriftEnv(n_actions=3), buffer_size=2_000, policy_kwargs={"sparsity": 0.5})
    with pytest.raises(ValueError, match="topology='active' learns from an RLx2ReplayBuffer"):
        sparse.learn(1_000, RLx2Callback(topology="active"))


# Not CrossQ: behind normalisations, which learn, nothing is fixed.
CAN_BE_FIXED = [algorithm for algorithm in ALGORITHMS if algorithm.__name__ != "RLx2CrossQ"]


def test_nothing_is_fixed_behind_normalisations():
    algorithm = next(each for each in ALGORITHMS if each not in CAN_BE_FIXED)
    with pytest.raises(ValueError, match=r"hidden_weights='fixed' must be 'learned'"):
        algorithm("MlpPolicy", env_for(algorithm)(), policy_kwargs=small(algorithm, net_arch=[8]), hidden_weights="fixed")


@pytest.mark.parametrize("algorithm", CAN_BE_FIXED, ids=lambda each: each.__name__)
def test_options_reach_every_network(algorithm):
    options = {"hidden_weights": "fixed", "hidden_bias": 0.5, "init": "fan_in"}
    model = algorithm("MlpPolicy", env_for(algorithm)(), policy_kwargs=small(algorithm, net_arch=[16, 8]), seed=0, **options)
    for mlp in itertools.chain(*(network.sparse_heads() for network in model.policy.all_networks())):
        assert mlp.frozen_layers == 2
        assert (mlp.bias[:24] == 0.5).all()
        assert len(set(links_of_units(mlp, 1))) <= 2
    saved = model.policy._get_constructor_parameters()
    assert {name: saved[name] for name in options} == options


@pytest.mark.parametrize("algorithm", CAN_BE_FIXED, ids=lambda each: each.__name__)
def test_fixed_and_learned_regimes_train_in_every_algorithm(algorithm):
    settings = {"learning_starts": 20, "buffer_size": 500, "buffer_min_size": 50, "batch_size": 8, "device": "cpu", "seed": 0}
    settings |= sparsities(algorithm, 0.2, 0.2) | {"backend": "masked"}
    for option in ({"hidden_weights": "fixed"}, {"l1": 1e-3}):
        kwargs = small(algorithm, net_arch=[16, 8])
        model = algorithm("MlpPolicy", env_for(algorithm)(), policy_kwargs=kwargs, **settings, **option)
        networks = [mlp for name in model.policy.networks for mlp in getattr(model.policy, name).sparse_heads()]
        before = [mlp.values.detach().clone() for mlp in networks]
        learn_until(model, 60)
        for mlp, values in zip(networks, before, strict=True):
            assert th.equal(mlp.values[: mlp.hidden_nnz], values[: mlp.hidden_nnz]) == ("hidden_weights" in option)
            assert not th.equal(mlp.values, values)
