"""One description: what it leaves out, how it rounds, and what it refuses to describe."""

import dataclasses
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3

from sb3_rlx2.export import describe
from sb3_rlx2.export.description import Stage, observations, rounded, simplified, stored
from sb3_rlx2.export.rlx2_reader import tanh
from tests.exported import AGENTS, agent, by_hand, described, expected, some

F = np.float32


def stage(weight, bias, activation="relu"):
    return Stage(np.array(weight, float), np.array(bias, float), activation)


def test_what_cannot_matter_goes():
    stages, removed = simplified(
        [
            stage([[1, 2], [0, 0], [3, 0], [0, 4]], [0, 5, 6, 7]),  # unit 1 is relu(5), unit 3 feeds unit 2 below
            stage([[1, 2, 0, 0], [0, 0, 8, 0], [0, 0, 0, 9]], [0.5, 0, 0]),  # unit 2 leads nowhere
            stage([[1, -1, 0]], [0.25], "tanh"),
        ]
    )
    np.testing.assert_array_equal(stages[0].weight, [[1, 2], [3, 0]])
    np.testing.assert_array_equal(stages[0].bias, [0, 6])
    np.testing.assert_array_equal(stages[1].weight, [[1, 0], [0, 8]])
    np.testing.assert_array_equal(stages[1].bias, [0.5 + 2 * 5, 0])
    np.testing.assert_array_equal(stages[2].weight, [[1, -1]])
    assert (removed.units, removed.constants, removed.links) == (2, 1, 3)  # links of values 4, 9 and 2


def test_constants_run_through_layers():
    stages, removed = simplified(
        [stage([[1], [0]], [0, -1]), stage([[1, 0], [0, 5]], [0, 2]), stage([[1, 3]], [0], "identity")]
    )
    assert [part.weight.tolist() for part in stages] == [[[1]], [[1]], [[1]]]
    assert stages[2].bias.tolist() == [3 * 2]  # relu(2 + 5 * relu(-1))
    assert (removed.units, removed.constants, removed.links) == (0, 2, 2)


def test_policy_that_does_not_look():
    stages, _ = simplified([stage([[1, 1]], [0]), stage([[0], [0]], [1, -1]), stage([[2, 3]], [0.5], "identity")])
    assert [part.weight.shape for part in stages] == [(1, 2)]
    assert stages[0].bias.tolist() == [2.5]
    assert not stages[0].weight.any()


def test_rounding_by_hand():
    layer = stage([[127.0, -64.2, 0.4], [0, 0, 0]], [0.1, 70])
    eighth = rounded(layer, "int8")
    assert np.abs(eighth.weight / eighth.scales[:, None]).max() <= 127
    np.testing.assert_allclose(eighth.weight[0], [127, -64, 0], atol=0.5)
    assert eighth.bias.tolist() == [float(np.float16(0.1)), 70]
    assert rounded(layer, "fp16").weight[0, 2] == float(np.float16(0.4))
    with pytest.raises(ValueError, match=r"dtype='fp16': .* must be 'fp32'"):
        rounded(stage([[1e5]], [0]), "fp16")
    with pytest.raises(ValueError, match="finite"):
        stage([[np.inf]], [0])


@pytest.mark.parametrize(("columns", "links", "index"), [(256, 100, np.uint8), (257, 100, np.uint16), (256, 256, np.uint16)])
def test_index_is_as_small_as_it_can_be(columns, links, index):
    weight = np.zeros((4, columns))
    weight[0, :links] = 1
    assert stored([stage(weight, np.zeros(4))], "fp32")[0].columns.dtype == index


def test_dense_layers_have_no_index():
    dense, sparse = stored([stage(np.ones((3, 4)), np.zeros(3)), stage(np.eye(3), np.zeros(3))], "fp32")
    assert dense.columns is None
    assert sparse.columns.tolist() == [0, 1, 2]
    assert sparse.counts.tolist() == [1, 1, 1]


def test_action_by_hand():
    policy = by_hand()
    assert policy(np.array([3.0, 0.5])).tolist() == [0.5]  # units relu(2 * 0.5 + 1) = 2, relu(-3 + 0.5) = 0
    assert policy(np.array([[0.0, -9.0], [9.0, 9.0]])).tolist() == [[-0.375], [2.0]]  # the second is clipped
    assert np.isnan(policy(np.array([np.nan, 0.5]))).all()
    normaliser = np.array([[1, 0], [0, 0.25], [2, 2]], F)
    # (1.5 - 1) * 2 = 1; (9 - 0.25) * 2 is clipped to 4: units 9 and 0, and 0.5 * 9 - 0.5 is clipped to 2
    assert by_hand(normaliser=normaliser, clip=4.0)(np.array([1.5, 9.0])).tolist() == [2.0]
    unscaled = by_hand(output="unscale")
    assert unscaled(np.array([3.0, 0.5])).tolist() == [-1 + 0.5 * 1.5 * 3]
    assert by_hand(output="argmax", low=np.empty(0, F), high=np.empty(0, F))(np.array([3.0, 0.5])).tolist() == [0.0]


def test_tanh_is_tanh():
    x = np.linspace(-12, 12, 100_001).astype(F)
    np.testing.assert_allclose(tanh(x), np.tanh(x.astype(float)), rtol=0, atol=3.1e-7)
    assert np.abs(tanh(x)).max() == 1
    assert np.isnan(tanh(np.array([np.nan], F))).all()


@pytest.mark.parametrize("name", AGENTS)
def test_acts_as_predict_does(name):
    description, seen = described(name), some(name, 20_000)
    actions, policy = expected(name, seen), description.policy()
    if policy.output == "argmax":
        assert (policy(seen) != actions).mean() <= 1e-4  # where two are as good as each other
    else:
        span = description.high - description.low
        scale = np.where(np.isfinite(span), span, np.abs(actions).max())
        assert np.abs((policy(seen) - actions) / scale).max() <= 2e-6
    assert policy.self_test() == 0


@pytest.mark.parametrize("name", ["RLx2TD3", "RLx2TD3 98 %", "RLx2SAC"])
def test_sparse_stays_sparse(name):
    model, _ = agent(name)
    mlp = model.actor.sparse_heads()[0]
    description = described(name)
    about = description.policy().about
    assert (description.live, description.size) == (mlp.nnz, mlp.size)
    assert about["links"] == about["links_before"] - about["links_that_did_not_matter"] < 0.2 * mlp.size


def test_hopper_loses_units():
    about = described("RLx2TD3 98 %").policy().about
    assert about["weights_of_dense"] == 69_120
    assert about["links_before"] == 1383
    assert about["units_without_path"] > 0
    assert about["units_without_input"] > 0


@pytest.mark.parametrize(("dtype", "largest"), [("fp16", 5e-3), ("int8", 0.2)])
def test_smaller_types_come_near(dtype, largest):
    description, seen = described("RLx2SAC"), some("RLx2SAC")
    policy = description.policy(dtype)
    assert 1e-6 < np.abs(policy(seen) - expected("RLx2SAC", seen)).max() <= largest
    assert policy.about["dtype"] == dtype


def test_quantiles_are_averaged():
    about = described("QRDQN").policy().about
    assert about["weights_of_dense"] == 4 * 64 + 64 * 48 + 48 * 200 * 2
    assert about["links"] == 4 * 64 + 64 * 48 + 48 * 2


def test_means_are_kept_to_float64():
    """Where an observation hardly varies around a large mean, the mean in one float32 is too coarse."""
    policy, seen = described("TD3").policy(), some("TD3")
    coarse = dataclasses.replace(policy, normaliser=policy.normaliser * np.array([[1], [0], [1]], F))
    actions = expected("TD3", seen)
    assert np.abs(coarse(seen) - actions).max() > 10 * np.abs(policy(seen) - actions).max()


def test_observations_reach_beyond_the_clip():
    description = described("RLx2TD3")
    normalised = (observations(description, 1000, np.random.default_rng(0)) - description.mean) / description.std
    assert (np.abs(normalised) > 10).any(axis=1).mean() > 0.1
    assert (np.abs(normalised) < 4).all(axis=1).mean() > 0.4


class OwnForward(th.nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def replaced(model, module):
    model.policy.actor.mu[0] = module
    return model


def small(algorithm=TD3, env="Pendulum-v1", **kwargs):
    return algorithm("MlpPolicy", gym.make(env), **({"policy_kwargs": {"net_arch": [4]}, "device": "cpu"} | kwargs))


class Dictionary(gym.Env):
    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,))})
    action_space = spaces.Box(-1, 1, (1,))


class Images(gym.Env):
    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Box(-1, 1, (1,))


class Several(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.MultiDiscrete([2, 2])


class Numbered(gym.Env):
    observation_space = spaces.Discrete(4)
    action_space = spaces.Discrete(2)


class TD3WithOwnPredict(TD3):
    def predict(self, *args, **kwargs):
        return super().predict(*args, **kwargs)


def with_hook():
    model = small()
    model.policy.actor.mu[0].register_forward_hook(lambda *_: None)
    return model


def with_method():
    model = small()
    model.policy.actor.forward = lambda obs: obs
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TD3("MultiInputPolicy", Dictionary(), buffer_size=10), r"observation_space=Dict.* must be a Box"),
        (lambda: TD3("CnnPolicy", Images(), buffer_size=10), r"features_extractor=NatureCNN"),
        (lambda: TD3("MlpPolicy", Images(), buffer_size=10), r"it holds images"),
        (lambda: TD3("MlpPolicy", Images(), buffer_size=10, policy_kwargs={"normalize_images": False}), r"it holds images"),
        (lambda: small(SAC, use_sde=True), r"use_sde=True of SAC with SACPolicy"),
        (lambda: small(PPO, use_sde=True), r"use_sde=True of PPO with ActorCriticPolicy"),
        (lambda: PPO("MlpPolicy", Several()), r"action_space=MultiDiscrete"),
        (lambda: DQN("MlpPolicy", Numbered(), buffer_size=10), r"observation_space=Discrete\(4\)"),
        (lambda: replaced(small(), OwnForward(3, 4)), r"OwnForward cannot be exported: it has a method forward of its own"),
        (lambda: replaced(small(), th.nn.LayerNorm(3)), r"LayerNorm.* cannot be exported"),
        (lambda: small(policy_kwargs={"activation_fn": th.nn.GELU}), r"GELU.* cannot be exported"),
        (lambda: small(TD3WithOwnPredict), r"TD3WithOwnPredict cannot be exported: it has a method predict of its own"),
        (with_hook, r"Linear cannot be exported: it has forward hooks"),
        (with_method, r"Actor cannot be exported: it has a method forward of its own"),
    ],
)
def test_refused_by_name(make, message):
    model = make()
    with pytest.raises(ValueError, match=message) as caught:
        describe(model)
    assert "\n" not in str(caught.value)


def test_wrong_statistics_are_refused():
    _, statistics = agent("DQN")
    with pytest.raises(ValueError, match=r"vecnormalize: .* of shape \(11,\)"):
        describe(agent("RLx2TD3")[0], statistics)


def test_unknown_names():
    with pytest.raises(ValueError, match="dtype='fp8' is unknown"):
        described("RLx2TD3").policy("fp8")
    with pytest.raises(ValueError, match="activation='swish' is unknown"):
        stage([[1]], [0], "swish")


def test_reader_needs_numpy_alone():
    code = (
        "import sys, runpy; sys.modules['torch'] = None;"
        "names = runpy.run_path('sb3_rlx2/export/rlx2_reader.py');"
        "assert 'stable_baselines3' not in sys.modules and 'sb3_rlx2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_small_weights_round_to_zero_whatever_numpy_is_told_to_raise():
    stage = Stage(np.full((1, 2), 1e-9), np.full(1, 1e-9), "identity")
    with np.errstate(all="raise"):
        for dtype in ("fp16", "int8"):
            assert not rounded(stage, dtype).bias.any()
