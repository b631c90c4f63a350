"""
What a worker can be ordered to do: each task takes its arguments and gives a function that does it ``n`` times.

Imports are late, because the worker of SBX has neither our package nor its dependencies.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th

Run = Callable[[int], Any]

LEARNING_STARTS = 1_000
# The paper's intervals are 10,000. At these ones, each go of `end_to_end` holds an update of the critics' topology and a
# look at the policy distance, which makes ours a little slower than it is in a run.
EVERYTHING_ON = {
    "n_steps_delay": 0.0,
    "update_interval": 1_000,
    "buffer_check_interval": 1_000,
}
BUFFER = {"n_steps": 3, "buffer_min_size": 1_000}


def make(kind: str, algorithm: str, env: str, normalize: bool, net_arch: list[int], batch: int, **sparsity: float) -> Any:
    """Make an agent; all have the same hyper-parameters. See ``cells.agent``."""
    arguments: dict[str, Any] = {
        "env": _normalized(env) if normalize else env,
        "learning_rate": 3e-4,
        "buffer_size": 100_000,
        "learning_starts": LEARNING_STARTS,
        "batch_size": batch,
        "train_freq": 1,
        "gradient_steps": 1,
        "policy_kwargs": {"net_arch": net_arch},
        "seed": 0,
        "device": "cpu",
    }
    model = MAKERS[kind](algorithm, arguments, sparsity)
    if algorithm in ("TD3", "DDPG"):
        _add_noise(model)
    _pretend_long_run(model)
    return model


def _normalized(env: str) -> Any:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    return VecNormalize(make_vec_env(env))


def _make_rlx2(algorithm: str, arguments: dict[str, Any], sparsity: dict[str, float]) -> Any:
    import sb3_rlx2

    return getattr(sb3_rlx2, f"RLx2{algorithm}")("MlpPolicy", **arguments, **sparsity, **BUFFER, **EVERYTHING_ON)


def _make_parts(algorithm: str, arguments: dict[str, Any], sparsity: dict[str, float]) -> Any:
    import stable_baselines3

    import sb3_rlx2

    arguments["policy_kwargs"] |= sparsity
    parts = {"replay_buffer_class": sb3_rlx2.RLx2ReplayBuffer, "replay_buffer_kwargs": BUFFER}
    return getattr(stable_baselines3, algorithm)(getattr(sb3_rlx2, f"Sparse{algorithm}Policy"), **arguments, **parts)


def _make_dense(algorithm: str, arguments: dict[str, Any], sparsity: dict[str, float]) -> Any:
    import stable_baselines3

    if hasattr(stable_baselines3, algorithm):
        return getattr(stable_baselines3, algorithm)("MlpPolicy", **arguments)
    import sb3_contrib

    return getattr(sb3_contrib, algorithm)("MlpPolicy", **arguments)


def _make_sbx(algorithm: str, arguments: dict[str, Any], sparsity: dict[str, float]) -> Any:
    import sbx

    return getattr(sbx, algorithm)("MlpPolicy", **arguments)


MAKERS = {"rlx2": _make_rlx2, "parts": _make_parts, "dense": _make_dense, "sbx": _make_sbx}


def _add_noise(model: Any) -> None:
    from stable_baselines3.common.noise import NormalActionNoise

    shape = model.action_space.shape
    model.action_noise = NormalActionNoise(np.zeros(shape), 0.1 * np.ones(shape))


def _pretend_long_run(model: Any) -> None:
    """Keep progress, and with it the share of links that move, where a run of a million steps begins."""
    setup = model._setup_learn

    def setup_long(*args: Any, **kwargs: Any) -> Any:
        result = setup(*args, **kwargs)
        model._total_timesteps = 1_000_000
        return result

    model._setup_learn = setup_long


def trained(warm_up: int, agent: dict[str, Any]) -> Any:
    """
    Make an agent and train it a little.

    :param warm_up: steps of training
    :param agent: what ``make`` takes
    """
    model = make(**agent)
    callback = None
    if agent["kind"] == "parts":
        from sb3_rlx2.callbacks import RLx2Callback

        callback = RLx2Callback(**EVERYTHING_ON)
    model.learn(LEARNING_STARTS + warm_up, callback=callback)
    if hasattr(model.policy, "topology_updater"):
        model.policy.topology_updater.configure("rigl", 0.5, 10_000)  # the end of `learn` has put it to rest
    return model


def end_to_end(warm_up: int, **agent: Any) -> Run:
    """Steps in the environment, each with a gradient step."""
    model = trained(warm_up, agent)

    def run(n: int) -> None:
        model.learn(n, reset_num_timesteps=False)
        if agent["kind"] == "sbx":
            import jax

            jax.block_until_ready((model.policy.actor_state.params, model.policy.qf_state.params))

    return run


def gradient_step(warm_up: int, **agent: Any) -> Run:
    """Calls of ``train(1, batch_size)``."""
    return _steps(trained(warm_up, agent))


def topology_update(warm_up: int, **agent: Any) -> Run:
    """Gradient steps, each of which is a topology update of the networks that it trains."""
    model = trained(warm_up, agent)
    model.policy.topology_updater.configure("rigl", 0.5, 1)
    return _steps(model)


def _steps(model: Any) -> Run:
    def run(n: int) -> None:
        for _ in range(n):
            model.train(1, model.batch_size)

    return run


def predict(**agent: Any) -> Run:
    """Choices of an action for one observation."""
    model = make(**agent)
    obs = model.observation_space.sample().clip(-1, 1)

    def run(n: int) -> None:
        for _ in range(n):
            model.predict(obs, deterministic=True)

    return run


def bare_forward(**agent: Any) -> Run:
    """The actor's network alone, one observation."""
    model = make(**agent)
    obs = np.zeros((1, model.observation_space.shape[0]), np.float32)
    return _dense_forward(model.actor.mu, obs) if agent["kind"] == "dense" else _sparse_forward(model.actor.mu, obs)


def _dense_forward(net: th.nn.Module, obs: np.ndarray) -> Run:
    x = th.from_numpy(obs)

    @th.no_grad()
    def run(n: int) -> None:
        for _ in range(n):
            net(x)

    return run


def _sparse_forward(net: Any, obs: np.ndarray) -> Run:
    from sb3_rlx2.backends import infer

    def run(n: int) -> None:
        for _ in range(n):
            infer(net, obs)

    return run


def line_transfer() -> Run:
    """A cache line that goes to another core and comes back."""
    from numba import njit

    from sb3_rlx2.fast.team import new_mailbox
    from sb3_rlx2.kernels.mailbox import load_state, store_state

    @njit(nogil=True)
    def bounce(own: Any, other: Any, n: int, begins: bool) -> None:
        for k in range(1, n + 1):
            if begins:
                store_state(other, k)
            while load_state(own) != k:
                pass
            if not begins:
                store_state(other, k)

    def run(n: int) -> None:
        here, there = new_mailbox(), new_mailbox()
        partner = threading.Thread(target=bounce, args=(there, here, n, False))
        partner.start()
        bounce(here, there, n, True)
        partner.join()

    return run


def arithmetic(threads: int) -> Run:
    """Multiplications and additions in the L1 cache, by threads that have nothing to do with each other."""
    from numba import njit

    @njit(nogil=True, fastmath=True)
    def work(x: Any, y: Any, n: int) -> None:
        for _ in range(n):
            for _ in range(100):
                for i in range(x.size):
                    y[i] = y[i] * 0.5 + x[i]

    def run(n: int) -> None:
        arrays = [np.ones((2, 512), np.float32) for _ in range(threads)]
        partners = [threading.Thread(target=work, args=(*each, n)) for each in arrays[1:]]
        for partner in partners:
            partner.start()
        work(*arrays[0], n)
        for partner in partners:
            partner.join()

    return run


def memory(warm_up: int, **agent: Any) -> Run:
    """Bytes that a trained agent holds."""
    model = trained(warm_up, agent)
    return lambda n: _bytes(model)


def _bytes(model: Any) -> dict[str, int]:
    from sb3_rlx2.sparse_mlp import sparse_mlps

    policy = model.policy
    nets, targets = (policy.actor, policy.critic), [getattr(policy, f"{name}_target", None) for name in ("actor", "critic")]
    parameters = [parameter for net in nets for parameter in net.parameters()]
    moments = [state for net in nets for states in net.optimizer.state.values() for state in states.values()]
    return {
        "nnz": sum(mlp.nnz for net in nets for mlp in sparse_mlps(net)),
        "parameters": _size(parameters),
        "gradients": _size([parameter.grad for parameter in parameters if parameter.grad is not None]),
        "moments": _size([moment for moment in moments if moment.numel() > 1]),
        "targets": _size([parameter for target in targets if target for parameter in target.parameters()]),
    }


def _size(tensors: list[th.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def dense_product(width: int, batch: int) -> Run:
    """Torch's dense product of a layer."""
    weight, x = th.randn(width, width), th.randn(width, batch)
    y = th.empty(width, batch)

    def run(n: int) -> None:
        for _ in range(n):
            th.mm(weight, x, out=y)

    return run


def sparse_product(product: str, width: int, layers: int, density: float, batch: int) -> Run:
    """
    Kernels of a network of equal layers.

    :param product: ``"forward"``, ``"input gradient"`` or ``"weight gradient"``, which in deeper networks needs the
        gradients by the hidden layers, too
    """
    from sb3_rlx2.backends.csr import run_backward, run_forward, to_tiles

    mlp = _random_mlp(width, layers, density)
    x, y = (np.random.default_rng(0).normal(size=(batch, width)).astype(np.float32) for _ in range(2))
    if product == "forward":
        return _repeat(lambda: run_forward(mlp, to_tiles(mlp, x), y))
    done = run_forward(mlp, to_tiles(mlp, x), np.empty_like(y))
    by_input = product == "input gradient"
    into = None if by_input else (np.empty(mlp.nnz, np.float32), np.empty(layers * width, np.float32))
    return _repeat(lambda: run_backward(mlp, done, y, into, x if by_input else None))


def _repeat(call: Callable[[], Any]) -> Run:
    def run(n: int) -> None:
        for _ in range(n):
            call()

    return run


def _random_mlp(width: int, layers: int, density: float) -> Any:
    from sb3_rlx2.sparse_mlp import SparseMLP

    th.manual_seed(0)
    linears = [th.nn.Linear(width, width) for _ in range(layers)]
    return SparseMLP.from_linears(linears, [round(density * width**2)] * layers, th.nn.ReLU(), init="random", backend="csr")


def bandwidth(numbers: int) -> Run:
    """Additions of one float32 array to another: two numbers read and one written, each time."""
    a, b = np.zeros(numbers, np.float32), np.ones(numbers, np.float32)
    return _repeat(lambda: np.add(a, b, out=a))


def stages(warm_up: int, **agent: Any) -> Run:
    """Training with a stopwatch in each stage."""
    from benchmarks.speed.stopwatch import watch

    model = trained(warm_up, agent)
    stopwatch = watch(model)

    def run(n: int) -> dict[str, float]:
        stopwatch.restart()
        model.learn(n, reset_num_timesteps=False)
        return stopwatch.seconds

    return run


def stage_work(**agent: Any) -> Run:
    """What the stages of a step have to do at least: FLOPs and bytes."""
    from benchmarks.speed.stopwatch import work

    return lambda n: work(trained(1, agent))


TASKS: dict[str, Callable[..., Run]] = {
    task.__name__: task
    for task in (
        end_to_end, gradient_step, topology_update, predict, bare_forward, line_transfer, arithmetic, memory,
        dense_product, sparse_product, bandwidth, stages, stage_work,
    )
}  # fmt: skip
