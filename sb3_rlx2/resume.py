"""Continued training: checkpoints that hold all it takes, and what must fit when one is picked up."""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_rlx2.distributions import DISTRIBUTIONS

NETWORK_KEYWORDS = ("actor_sparsity", "critic_sparsity", "distribution")


class Checkpoint(CheckpointCallback):
    """
    SB3's checkpoints, with the replay buffer and the ``VecNormalize`` statistics; there whole or not at all.

    :param save_freq: calls between two checkpoints
    :param save_path: folder
    :param keep_buffers: keep every checkpoint's replay buffer and not only the newest one's: a buffer of a million
        transitions takes hundreds of megabytes
    """

    def __init__(self, save_freq: int, save_path: str, keep_buffers: bool) -> None:
        super().__init__(save_freq, save_path, save_replay_buffer=True, save_vecnormalize=True)
        self.folder = Path(save_path)
        self.keep_buffers = keep_buffers

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            try:
                self._save()
            except OSError as error:  # a full disk is no reason to lose the run
                warnings.warn(f"no checkpoint at step {self.num_timesteps}: {error}", stacklevel=1)
        return True

    def _save(self) -> None:
        earlier = list(self.folder.glob(f"{self.name_prefix}_replay_buffer_*_steps.pkl"))
        with tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=self.folder) as self.save_path:
            super()._on_step()
            # The agent comes last: where it is, what belongs to it is too.
            saved = sorted(os.listdir(self.save_path), key=lambda name: name.endswith(".zip"))
            for name in saved:
                os.replace(os.path.join(self.save_path, name), self.folder / name)
        for path in earlier:
            if not self.keep_buffers and path.name not in saved:  # steps may have been counted from 0 again
                path.unlink(missing_ok=True)


def check_networks(path: str, hyperparams: dict[str, Any]) -> None:
    """
    Check that the hyper-parameters ask for no other sparse networks than a saved agent has.

    :param path: the agent's zip, whose networks a continued run keeps
    :param hyperparams: arguments of the algorithm, RLx2's flat or in ``policy_kwargs``
    :raises ValueError: if they do
    """
    data, _, _ = load_from_zip_file(path, device="cpu")
    saved = (data or {}).get("policy_kwargs", {}) | (data or {})
    given = [(name, source[name]) for source in (hyperparams, hyperparams.get("policy_kwargs", {})) for name in source]
    for name, value in given:
        if name not in NETWORK_KEYWORDS or _same(value, saved.get(name)):
            continue
        if name not in saved:
            raise ValueError(f"{name}={value!r} cannot hold for {path}, which is a dense agent: train from scratch")
        raise ValueError(
            f"{name}={value!r} differs from the {saved[name]!r} of {path}, whose networks a continued run keeps: "
            f"set {name} to {saved[name]!r}, or train from scratch"
        )


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one in DISTRIBUTIONS and DISTRIBUTIONS[one] is DISTRIBUTIONS.get(other))


def skip_warm_up(model: Any) -> None:
    """
    Take what the loaded replay buffer already holds off the random warm-up, which SB3 would do again.

    :param model: the loaded model
    """
    if not isinstance(model, OffPolicyAlgorithm) or model.replay_buffer is None or model.replay_buffer.size() == 0:
        return
    trained = model._n_updates > 0  # then the warm-up was over, however far the buffer has shrunk since
    model.learning_starts = 0 if trained else max(model.learning_starts - model.num_timesteps, 0)
    if model.verbose > 0:
        transitions = model.replay_buffer.size() * model.replay_buffer.n_envs
        print(f"Training goes on from {transitions:,} transitions, {model.learning_starts:,} steps of warm-up to do")
