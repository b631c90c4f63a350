import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC, TD3, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer, RLx2SAC, RLx2TD3, SparseSACPolicy, SparseTD3Policy
from sb3_rlx2.policies import SparseSACMultiInputPolicy, SparseTD3MultiInputPolicy
from tests import reference
from tests.checks import sparse_mlps
from tests.envs import GoalEnv, TinyEnv
from tests.every import ALGORITHMS, MAXIMUM_ENTROPY, env_for

POLICIES = {TD3: SparseTD3Policy, SAC: SparseSACPolicy}
OWN = {TD3: RLx2TD3, SAC: RLx2SAC}
SPARSE = {"net_arch": [16], "actor_sparsity": 0.5, "critic_sparsity": 0.5, "backend": "masked"}
NETWORKS = ("actor", "critic")
both = pytest.mark.parametrize("algorithm", [TD3, SAC])


def make_envs(n_envs=1, normalize=False, **kwargs):
    env = DummyVecEnv([lambda: TinyEnv(**kwargs)] * n_envs)
    return VecNormalize(env, clip_obs=2.0) if normalize else env


def make_stock(algorithm, env=None, policy=None, buffer=None, **kwargs):
    """SB3's own algorithm with our parts."""
    own = {
        "replay_buffer_class": RLx2ReplayBuffer,
        "replay_buffer_kwargs": {"n_steps": 3, "buffer_min_size": 30} | (buffer or {}),
    }
    return algorithm(
        policy or POLICIES[algorithm],
        make_envs() if env is None else env,
        **{"learning_starts": 20, "batch_size": 4, "buffer_size": 1000, "policy_kwargs": dict(SPARSE), **own, **kwargs},
        device="cpu",
        seed=0,
    )


def make_callback(**kwargs):
    return RLx2Callback(**{"update_interval": 10, "buffer_check_interval": 10, "policy_distance_threshold": 1e9, **kwargs})


class Each(BaseCallback):
    """Calls a function after each environment step; returns what it returned, as lists."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.seen = []

    def _on_step(self):
        self.seen.append(self.function(self.model))
        return True


def until(steps):
    """Stop early, so that training progress stays small and every update moves links."""
    callback = Each(lambda model: None)
    callback._on_step = lambda: callback.model.num_timesteps < steps
    return callback


class Moves:
    """Watches each optimizer step from outside: at which of them did the topology change, and by how much?"""

    def __init__(self, model):
        self.steps = dict.fromkeys(NETWORKS, 0)
        self.changed = {name: [] for name in NETWORKS}
        self.churn = dict.fromkeys(NETWORKS, 0.0)
        self.networks = {name: sparse_mlps(getattr(model.policy, name)) for name in NETWORKS}
        self.last = {name: self.indices(name) for name in NETWORKS}
        for name in NETWORKS:
            getattr(model.policy, name).optimizer.register_step_post_hook(lambda *_, name=name: self.look(name))

    def indices(self, name):
        return [set(mlp.index.tolist()) for mlp in self.networks[name]]

    def look(self, name):
        self.steps[name] += 1
        before, after = self.last[name], self.indices(name)
        if before != after:
            self.changed[name].append(self.steps[name])
            self.churn[name] = sum(len(new - old) for old, new in zip(before, after, strict=True)) / sum(map(len, after))
        self.last[name] = after


def multiples(interval, last):
    return list(range(interval, last + 1, interval))


@pytest.mark.parametrize("topology", ["rigl", "set", "static"])
@both
def test_topology_of_stock_algorithms_evolves(algorithm, topology):
    model = make_stock(algorithm)
    moves = Moves(model)
    model.learn(10_000, callback=[make_callback(topology=topology), until(120)])
    n_actor = 49 if algorithm is TD3 else 99  # steps 21 to 119
    assert moves.steps == {"actor": n_actor, "critic": 99}
    for name in NETWORKS:
        expected = [] if topology == "static" else multiples(10, moves.steps[name])
        assert moves.changed[name] == expected
        counters = model.policy.topology_updater.networks[name]
        assert (counters.steps, counters.updates) == (moves.steps[name], len(expected))
        assert counters.churn == pytest.approx(moves.churn[name])


@pytest.mark.parametrize(
    ("n_envs", "kwargs", "critic_steps"),
    [
        (4, {"gradient_steps": -1}, 100),  # after steps 24, 28, ..., 120, four each
        (4, {"gradient_steps": 2}, 50),
        (4, {"gradient_steps": -1, "train_freq": 3}, 108),  # after 24, 36, ..., 120, twelve each
        (1, {"train_freq": (1, "episode"), "gradient_steps": -1}, 105),  # episodes of 7 end after 21, 28, ..., 119
        (1, {"train_freq": (2, "episode"), "gradient_steps": 5}, 35),  # after 28, 42, ..., 112
        (1, {"train_freq": 5, "gradient_steps": 15}, 300),  # after 25, 30, ..., 120
    ],
)
@both
def test_updates_count_optimizer_steps_whatever_the_frequency(algorithm, n_envs, kwargs, critic_steps):
    model = make_stock(algorithm, make_envs(n_envs, length=7), **kwargs)
    moves = Moves(model)
    model.learn(10_000, callback=[make_callback(update_interval=6), until(121)])
    assert moves.steps["critic"] == critic_steps
    assert moves.steps["actor"] == (critic_steps // 2 if algorithm is TD3 else critic_steps)
    for name in NETWORKS:
        assert moves.changed[name] == multiples(6, moves.steps[name])


@pytest.mark.parametrize(("delay", "first"), [(0.0, 1), (0.25, 70), (1.0, 220)])
@pytest.mark.parametrize("n_envs", [1, 2])
@both
def test_n_step_switch(algorithm, n_envs, delay, first):
    model = make_stock(algorithm, make_envs(n_envs), gradient_steps=0)
    each = Each(lambda model: (model.num_timesteps, model.replay_buffer.n_steps))
    model.learn(220, callback=[make_callback(n_steps_delay=delay), each])
    assert each.seen == [(step, 3 if step >= first else 1) for step in range(n_envs, 221, n_envs)]


def test_n_steps_of_1_never_switches():
    model = make_stock(TD3, buffer={"n_steps": 1})
    each = Each(lambda model: model.replay_buffer.n_steps)
    model.learn(60, callback=[make_callback(n_steps_delay=0.0), each])
    assert set(each.seen) == {1}


@pytest.mark.parametrize("n_envs", [1, 2])
@both
def test_shrink_once_per_check(algorithm, n_envs):
    sizes = {"learning_starts": 80, "buffer_size": 160, "buffer": {"buffer_min_size": 110}}
    model = make_stock(algorithm, make_envs(n_envs), train_freq=5, **sizes)
    each = Each(lambda model: model.replay_buffer.size() * n_envs)
    callback = make_callback(policy_distance_threshold=0.0, buffer_check_interval=40)
    model.learn(400, callback=[callback, each])
    expected, live = [], 0
    for step in range(n_envs, 401, n_envs):
        if step % 40 == 0 and step > 80:
            rows = live // n_envs
            live = min(live, max(rows - rows // 10, 110 // n_envs) * n_envs)
        expected.append(live)  # the step's own transition comes after the callbacks
        live = min(live + n_envs, 160)
    assert each.seen == expected
    assert any(b < a for a, b in pairwise(expected))


@pytest.mark.parametrize("threshold", [1e9, float("inf")])
def test_close_policy_keeps_the_buffer(threshold):
    model = make_stock(TD3)
    model.learn(100, callback=make_callback(policy_distance_threshold=threshold))
    assert model.replay_buffer.size() == 100


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
def test_checks_fall_on_the_same_steps_in_a_continued_run():
    def checks(*parts):
        model = make_stock(TD3, make_envs(length=1000))
        callback = make_callback(policy_distance_threshold=0.0, buffer_check_interval=30)
        each = Each(lambda model: model.replay_buffer.start)
        for part in parts:
            model.learn(part, callback=[callback, each], reset_num_timesteps=False)
        return each.seen

    assert checks(100, 50) == checks(150)


def test_gamma_is_copied():
    model = make_stock(TD3, gamma=0.9)
    assert model.replay_buffer.gamma == 0.99
    model.learn(30, callback=make_callback())
    assert model.replay_buffer.gamma == 0.9


class Capture(KVWriter):
    def __init__(self):
        self.dumps = []

    def write(self, key_values, key_excluded, step=0):
        if "rlx2/flops_ratio" in key_values:  # rows between the dumps have tests of their own
            self.dumps.append({"step": step} | {key: value for key, value in key_values.items() if key.startswith("rlx2/")})

    def close(self):
        pass


def capture_log(model):
    capture = Capture()
    model.set_logger(Logger(None, [capture]))
    return capture.dumps


COMMON_KEYS = {f"rlx2/{name}_{what}" for name in NETWORKS for what in ("density", "updates", "churn", "dead_links")}
COMMON_KEYS |= {"rlx2/drop_fraction", "rlx2/flops_ratio", "step"}
BUFFER_KEYS = {"rlx2/policy_distance", "rlx2/buffer_size", "rlx2/n_steps"}


@pytest.mark.parametrize("n_envs", [1, 2])
@both
def test_log(algorithm, n_envs):
    policy_kwargs = SPARSE | {"actor_sparsity": 0.75, "distribution": "uniform"}
    model = make_stock(algorithm, make_envs(n_envs), policy_kwargs=policy_kwargs)
    dumps = capture_log(model)
    moves = Moves(model)
    callback = make_callback(n_steps_delay=0.2, drop_fraction=0.4)
    each = Each(
        lambda model: (dict(moves.churn), {name: len(moves.changed[name]) for name in NETWORKS}, callback.policy_distance)
    )
    model.learn(340, callback=[callback, each, until(180)], log_interval=n_envs)
    assert [dump["step"] for dump in dumps] == list(range(10 * n_envs, 180, 10 * n_envs))
    for dump in dumps:
        assert dump.keys() == COMMON_KEYS | BUFFER_KEYS
        step = dump["step"]
        churn, updates, distance = each.seen[step // n_envs - 1]
        for name in NETWORKS:
            assert dump[f"rlx2/{name}_churn"] == pytest.approx(churn[name])
            assert dump[f"rlx2/{name}_updates"] == updates[name]
        progress = max(step - 20, 0) / 320
        assert dump["rlx2/drop_fraction"] == pytest.approx(reference.cosine(progress, 0.4))
        assert dump["rlx2/n_steps"] == (3 if progress >= 0.2 else 1)
        assert dump["rlx2/buffer_size"] == step - n_envs  # the step's own transition comes after the callbacks
        assert dump["rlx2/policy_distance"] == pytest.approx(distance, nan_ok=True)
        assert np.isnan(distance) == (step <= 20)
        assert dump["rlx2/actor_density"] == 0.25
        assert dump["rlx2/critic_density"] == 0.5
        assert 0.25 < dump["rlx2/flops_ratio"] < 0.5
    assert dumps[-1]["rlx2/critic_updates"] > 3


@both
def test_flops_ratio_of_equal_sparsities(algorithm):
    model = make_stock(algorithm, policy_kwargs=SPARSE | {"distribution": "uniform"})
    dumps = capture_log(model)
    model.learn(40, callback=make_callback(), log_interval=1)
    assert {dump["rlx2/flops_ratio"] for dump in dumps} == {0.5}


def distance_by_hand(model, count):
    """One state after the other, through SB3's own `predict`."""
    buffer, normalizer = model.replay_buffer, model.get_vec_normalize_env()
    rows = [
        (row % buffer.buffer_size, env) for row in range(buffer.pos - buffer.size(), buffer.pos) for env in range(model.n_envs)
    ]
    total = 0.0
    for row, env in rows[:count]:
        obs = buffer.observations[row, env]
        obs = obs if normalizer is None else normalizer.normalize_obs(obs)
        action = model.policy.scale_action(model.predict(obs, deterministic=True)[0])
        total += float(np.mean((action - buffer.policy_actions[row, env]) ** 2)) / 2
    return total / len(rows[:count])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n_envs", [1, 3])
@both
def test_policy_distance(algorithm, n_envs, normalize):
    model = make_stock(algorithm, make_envs(n_envs, normalize), buffer_size=90, learning_rate=0.03)
    callback = make_callback(buffer_check_interval=30)

    def compare(model):
        return (callback.policy_distance, distance_by_hand(model, 8 * 4)) if model.num_timesteps % 30 == 0 else None

    each = Each(compare)
    model.learn(150, callback=[callback, each])
    found = [pair for pair in each.seen if pair is not None][1:]  # the first is in warm-up or just after
    for ours, by_hand in found:
        assert ours == pytest.approx(by_hand, rel=1e-4)
    assert len({round(ours, 6) for ours, _ in found}) == 4


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n_envs", [1, 3])
@both
def test_noise_free_action_is_stored(algorithm, n_envs, normalize):
    model = make_stock(algorithm, make_envs(n_envs, normalize), action_noise=NormalActionNoise(np.zeros(2), np.full(2, 0.3)))

    def act(model):
        # Here `_last_obs` is still what the action was chosen on, with the normalisation of that moment.
        return model.policy.scale_action(model.predict(model._last_obs, deterministic=True)[0])

    each = Each(act)
    model.learn(90, callback=[each, make_callback()])
    buffer = model.replay_buffer
    warm_up = -(-20 // n_envs)
    np.testing.assert_array_equal(buffer.policy_actions[:warm_up], buffer.actions[:warm_up])
    rows = slice(warm_up, buffer.pos)
    np.testing.assert_allclose(buffer.policy_actions[rows], each.seen[warm_up:], atol=1e-6)
    assert np.abs(buffer.policy_actions[rows] - buffer.actions[rows]).mean() > 0.05


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_without_noise_the_executed_action_is_the_noise_free_one(n_envs, normalize):
    model = make_stock(TD3, make_envs(n_envs, normalize), learning_rate=0.03)
    model.learn(90, callback=make_callback())
    pos = model.replay_buffer.pos
    np.testing.assert_allclose(model.replay_buffer.policy_actions[:pos], model.replay_buffer.actions[:pos], atol=1e-6)


@pytest.mark.parametrize("ent_coef", [0.25, "auto_0.5"])
def test_lent_entropy_bonus(ent_coef):
    model = make_stock(SAC, ent_coef=ent_coef)
    model.learn(40, callback=make_callback(n_steps_delay=0.0))
    next_obs = th.randn(50, 3)
    alpha = 0.25 if ent_coef == 0.25 else model.log_ent_coef.detach().exp()
    th.manual_seed(5)
    bonus = model.replay_buffer.entropy_bonus(next_obs)
    th.manual_seed(5)
    _, log_prob = model.actor.action_log_prob(next_obs)
    np.testing.assert_allclose(bonus.reshape(-1), -alpha * log_prob.detach(), rtol=1e-6)
    assert not bonus.requires_grad
    again = model.replay_buffer.entropy_bonus(next_obs)
    assert not th.equal(bonus, again)  # fresh actions


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("soft", [True, False])
def test_who_gets_an_entropy_bonus(algorithm, soft):
    lends = soft and algorithm in MAXIMUM_ENTROPY
    own = {"soft_n_step": soft} if algorithm in MAXIMUM_ENTROPY else {}
    model = algorithm("MlpPolicy", env_for(algorithm)(), learning_starts=20, buffer_size=100, n_steps_delay=0.0, **own)
    model.learn(40)
    assert (model.replay_buffer.entropy_bonus is not None) == lends
    assert model.replay_buffer.uses_entropy_bonus == lends


@both
def test_two_ends_and_two_runs(algorithm):
    model = make_stock(algorithm)
    moves = Moves(model)
    callback = make_callback()
    for part in (1, 2):
        model.learn(10_000, callback=[callback, until(60 * part)], reset_num_timesteps=part == 1)
        callback.on_training_end()  # the zoo ends training twice
        model.policy.topology_updater.rest()
    assert_counted_once(model, moves, 39 + 59)


@both
def test_exception_skips_the_end(algorithm):
    model = make_stock(algorithm)
    moves = Moves(model)

    def fail(model):
        if model.num_timesteps == 60:
            raise KeyboardInterrupt

    callback = make_callback()
    with pytest.raises(KeyboardInterrupt):
        model.learn(10_000, callback=[callback, Each(fail)])
    model.learn(10_000, callback=[callback, until(120)], reset_num_timesteps=False)
    # Steps 21 to 59, then 61 (the 60th was counted but not trained on) to 119.
    assert_counted_once(model, moves, 39 + 59)


def assert_counted_once(model, moves, critic_steps):
    assert moves.steps["critic"] == critic_steps
    for name in NETWORKS:
        assert moves.changed[name] == multiples(10, moves.steps[name])
        assert model.policy.topology_updater.networks[name].steps == moves.steps[name]
        assert len(getattr(model.policy, name).optimizer._optimizer_step_pre_hooks) == 1


@both
def test_same_callback_in_a_second_model(algorithm):
    callback = make_callback(policy_distance_threshold=0.0)
    first, second = make_stock(algorithm), make_stock(algorithm)
    first.learn(60, callback=callback)
    state = [index for name in NETWORKS for index in Moves(first).last[name]]
    size = first.replay_buffer.size()
    assert not np.isnan(callback.policy_distance)
    moves, dumps = Moves(second), capture_log(second)
    second.learn(10_000, callback=[callback, until(60)], log_interval=1)
    assert_counted_once(second, moves, 39)
    assert np.isnan(dumps[0]["rlx2/policy_distance"])  # nothing is left of the first model
    assert [index for name in NETWORKS for index in Moves(first).last[name]] == state
    assert first.replay_buffer.size() == size


def nested_in_a_list():
    return CallbackList([CallbackList([RLx2Callback()])])


def nested_in_an_event():
    return EvalCallback(TinyEnv(), callback_after_eval=RLx2Callback())


def nested_deep():
    return [EveryNTimesteps(10, CallbackList([RLx2Callback()]))]


@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")
@pytest.mark.parametrize("second", [RLx2Callback, nested_in_a_list, nested_in_an_event, nested_deep])
@both
def test_second_callback_is_refused(algorithm, second):
    model = OWN[algorithm]("MlpPolicy", TinyEnv(), learning_starts=10, buffer_size=100, policy_kwargs={"net_arch": [16]})
    with pytest.raises(ValueError, match="more than one RLx2Callback"):
        model.learn(30, callback=second())
    assert model.num_timesteps == 0
    stock = make_stock(algorithm)
    other = second()
    with pytest.raises(ValueError, match="more than one RLx2Callback"):
        stock.learn(30, callback=[RLx2Callback(), *(other if isinstance(other, list) else [other])])
    stock.learn(30, callback=RLx2Callback())


def test_one_that_others_hold_is_no_second():
    rlx2, reader = make_callback(), Each(lambda _: None)
    reader.read, rlx2.reader = rlx2, reader
    make_stock(TD3).learn(30, callback=[rlx2, reader])


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@both
def test_users_other_callbacks_are_welcome(algorithm):
    model = OWN[algorithm](
        "MlpPolicy",
        TinyEnv(),
        learning_starts=10,
        buffer_size=100,
        batch_size=4,
        policy_kwargs={"net_arch": [16]},
        device="cpu",
    )
    each, seen = Each(lambda model: model.num_timesteps), []
    given = (None, each, [each], CallbackList([each]), lambda locals_, _: seen.append(1) or True)
    for callback in given:
        model.learn(12, callback=callback)
    assert each.seen == list(range(1, 13)) * 3
    assert len(seen) == 12


@both
def test_sparse_policy_without_callback_warns(algorithm):
    model = make_stock(algorithm)
    moves = Moves(model)
    with pytest.warns(UserWarning, match="topology stays fixed") as caught:
        model.learn(60)
    assert len(caught) == 1
    assert moves.changed == {"actor": [], "critic": []}
    assert moves.steps["critic"] == 40


def test_callback_without_sparse_policy_raises():
    model = TD3("MlpPolicy", TinyEnv(), device="cpu")
    with pytest.raises(ValueError, match=r"policy=TD3Policy is not sparse: RLx2Callback needs .* SparseTD3Policy"):
        model.learn(10, callback=RLx2Callback())


@pytest.mark.parametrize("her", [False, True])
@pytest.mark.parametrize("own", [False, True])
@both
def test_dict_observations_evolve_with_one_warning(algorithm, own, her):
    policies = {TD3: SparseTD3MultiInputPolicy, SAC: SparseSACMultiInputPolicy}
    buffer = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}} if her else {}
    common = {"learning_starts": 20, "batch_size": 4, "buffer_size": 1000, "device": "cpu", **buffer}
    if own:
        arguments = {"update_interval": 10, **SPARSE, "policy_kwargs": {"net_arch": SPARSE["net_arch"]}}
        del arguments["net_arch"]
        model, callback = OWN[algorithm]("MultiInputPolicy", GoalEnv(), **common, **arguments), until(60)
    else:
        model = algorithm(policies[algorithm], GoalEnv(), policy_kwargs=dict(SPARSE), **common)
        callback = [make_callback(), until(60)]
    moves, dumps = Moves(model), capture_log(model)
    with pytest.warns(UserWarning, match="only the topology evolves") as caught:
        model.learn(10_000, callback=callback, log_interval=1)
    assert len(caught) == 1
    for name in NETWORKS:
        assert moves.changed[name] == multiples(10, moves.steps[name])
    assert moves.steps["critic"] == 39
    assert dumps[-1].keys() == COMMON_KEYS | ({"rlx2/arrays"} if own else set())


def test_stock_buffer_evolves_too():
    model = make_stock(TD3, replay_buffer_class=None, replay_buffer_kwargs=None)
    moves = Moves(model)
    with pytest.warns(UserWarning, match="ReplayBuffer is not an RLx2ReplayBuffer"):
        model.learn(10_000, callback=[make_callback(), until(60)])
    assert moves.changed["critic"] == [10, 20, 30]


@both
def test_progress_does_not_fall_when_steps_start_again(algorithm, tmp_path):
    model = make_stock(algorithm)
    each = Each(lambda model: (model.policy.topology_updater.drop_fraction, model.replay_buffer.n_steps))
    model.learn(120, callback=[make_callback(n_steps_delay=0.5), each])
    drop_fractions = [drop for drop, _ in each.seen]
    assert drop_fractions == sorted(drop_fractions, reverse=True)
    assert (drop_fractions[0], drop_fractions[-1]) == (0.5, 0.0)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=model.get_env(), device="cpu")
    for continued in (model, loaded):
        each.seen.clear()
        with pytest.warns(UserWarning, match="links no longer move"):
            continued.learn(60, callback=[make_callback(n_steps_delay=0.5), each])
        assert set(each.seen) == {(0.0, 3)}


@both
def test_training_in_chunks_warns_once_the_topology_is_at_its_end(algorithm):
    model = OWN[algorithm]("MlpPolicy", make_envs(), learning_starts=30, buffer_size=500)
    with pytest.warns(UserWarning, match="learning_starts=30 is not below total_timesteps=20: nothing is trained"):
        model.learn(20, reset_num_timesteps=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "in this run of")
        model.learn(20, reset_num_timesteps=False)
    with pytest.warns(UserWarning, match=r"progress=1 .* links no longer move.*planned_timesteps"):
        model.learn(20, reset_num_timesteps=False)


@both
@pytest.mark.filterwarnings("ignore:learning_starts=20 is not below")
def test_a_learn_that_ends_within_the_warm_up_is_no_progress(algorithm):
    model = OWN[algorithm]("MlpPolicy", make_envs(3), learning_starts=20, buffer_size=500)
    model.learn(20)
    assert model.num_timesteps == 21
    assert model.policy.topology_updater.progress == 0.0
    assert model.replay_buffer.n_steps == 1


@both
def test_a_static_topology_has_no_end_to_warn_of(algorithm):
    model = OWN[algorithm]("MlpPolicy", make_envs(), learning_starts=5, buffer_size=500, topology="static")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "in this run of")
        for _ in range(2):
            model.learn(20, reset_num_timesteps=False)


def steps_of(samples):
    """Give (step, episode) of observations and of next observations."""
    return samples.observations[:, :2].numpy(), samples.next_observations[:, :2].numpy()


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("how", ["learn again", "set_env", "load_replay_buffer"])
def test_windows_do_not_cross_a_reset(how, normalize, tmp_path):
    model = make_stock(TD3, make_envs(length=1000, normalize=normalize))
    model.learn(30, callback=make_callback(n_steps_delay=0.0))
    if how == "set_env":
        model.set_env(model.get_env())
    elif how == "load_replay_buffer":
        model.save_replay_buffer(tmp_path / "buffer")
        model = make_stock(TD3, make_envs(length=1000, normalize=normalize))
        model.get_env().reset()  # the next episode has another number
        model.load_replay_buffer(tmp_path / "buffer")
    model.learn(30, callback=make_callback(n_steps_delay=0.0), reset_num_timesteps=how == "learn again")
    buffer = model.replay_buffer
    assert buffer.size() == 60
    assert len(set(buffer.observations[:60, 0, 1].tolist())) == 2
    before, after = steps_of(buffer._get_samples(np.arange(60)))
    np.testing.assert_array_equal(before[:, 1], after[:, 1])
    lengths = np.full(60, 3)
    lengths[[28, 29, 58, 59]] = [2, 1, 2, 1]  # up to the seam, and up to the newest
    np.testing.assert_array_equal(after[:, 0] - before[:, 0], lengths)


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_windows_go_on_where_the_episode_does(normalize, n_envs):
    model = make_stock(TD3, make_envs(n_envs, length=1000, normalize=normalize))
    for part in range(2):
        model.learn(30 * n_envs, callback=make_callback(n_steps_delay=0.0), reset_num_timesteps=part == 0)
    buffer = model.replay_buffer
    assert not buffer.timeouts.any()
    before, after = steps_of(buffer._get_samples(np.arange(58)))
    assert (after[:, 0] - before[:, 0] == 3).all()


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
def test_only_the_environments_that_were_reset_are_cut():
    model = make_stock(TD3, DummyVecEnv([lambda: TinyEnv(length=10), lambda: TinyEnv(length=1000)]))
    for part in range(2):
        model.learn(60, callback=make_callback(n_steps_delay=0.0), reset_num_timesteps=part == 0)
    # The first part ends with an episode of the first environment, while the second one's goes on.
    assert model.replay_buffer.timeouts[29].tolist() == [1, 0]


def test_verbose_says_what_happens(capsys):
    model = make_stock(TD3, verbose=0, buffer={"buffer_min_size": 0})
    model.set_logger(Logger(None, []))
    said = []
    model.logger.info = said.append
    model.learn(60, callback=make_callback(n_steps_delay=0.5, policy_distance_threshold=0.0, verbose=1))
    assert [line for line in said if "n-step" in line] == ["n-step targets begin at step 40, n=3"]
    assert len([line for line in said if line.startswith("policy distance") and "dropped the oldest" in line]) == 4
    assert capsys.readouterr().out == ""


def test_nothing_else_warns():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_stock(TD3).learn(40, callback=make_callback())
    assert not caught


def test_a_check_with_an_empty_buffer_waits():
    RLx2TD3("MlpPolicy", "Pendulum-v1", learning_starts=0, buffer_check_interval=1, buffer_size=100).learn(3)


def test_learn_takes_the_hosts_positional_arguments():
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=100, learning_starts=4)
    assert model.learn(5, None, 4, "run", False, False) is model


@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # the optimizer is called by hand
def test_steps_are_counted_again_after_an_error():
    """Torch calls no hook behind a step that raised in a hook before it."""
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", learning_starts=10, buffer_size=100, backend="masked").learn(12)
    network = model.policy.topology_updater.networks["critic"]
    steps = network.steps
    critic = model.critic.q_networks[0]
    critic.values.grad = th.full_like(critic.values, float("nan"))
    for _ in range(2):
        with pytest.raises(ValueError, match="the gradient of the critic"):
            model.critic.optimizer.step()
    assert network.steps == steps
