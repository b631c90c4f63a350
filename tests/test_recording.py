"""What a run leaves in progress.csv: every topology update and every look at the buffer, at its step."""

import csv
import io
from contextlib import closing
from copy import deepcopy

import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, Logger, configure

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer, RLx2SAC, RLx2TD3, SparseTD3Policy
from sb3_rlx2.progress_log import ProgressFile, layer_column, layer_of, progress_files
from sb3_rlx2.updater import TopologyUpdater

SMALL = {
    "learning_starts": 100,
    "batch_size": 16,
    "buffer_size": 1000,
    "buffer_min_size": 50,
    "policy_kwargs": {"net_arch": [16, 16]},
    "actor_sparsity": 0.5,
    "critic_sparsity": 0.5,
    "update_interval": 20,
    "buffer_check_interval": 100,
    "seed": 0,
}


def rows(path):
    """Give the rows of a progress file without their empty cells."""
    with open(path) as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def learn_into(folder, model, *args, **kwargs):
    """Train with SB3's log in a folder, as a user's script does."""
    with closing(configure(str(folder), ["csv"])) as logger:
        model.set_logger(logger)
        model.learn(*args, **kwargs)


@pytest.fixture
def true_churn(monkeypatch):
    """Compare the index before and after each update, layer by layer."""
    seen = []
    original = TopologyUpdater._update

    def spy(updater, network):
        before = [mlp.index.clone() for mlp in network.mlps]
        moved = original(updater, network)
        shares = {}
        for number, (mlp, old) in enumerate(zip(network.mlps, before, strict=True)):
            for layer, part in enumerate(mlp.slices):
                new = set(mlp.index[part].tolist()) - set(old[part].tolist())
                shares[f"rlx2/{network.name}_churn/{number}.{layer}"] = len(new) / mlp.layers[layer].nnz
        if moved:
            seen.append((network.name, network.updates, network.steps, shares))
        return moved

    monkeypatch.setattr(TopologyUpdater, "_update", spy)
    return seen


@pytest.mark.parametrize("train", [{}, {"train_freq": (1, "episode"), "gradient_steps": -1}])
def test_every_update_has_a_row(train, true_churn, tmp_path):
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", **deepcopy(SMALL), **train)
    learn_into(tmp_path, model, 600, log_interval=2)  # one dump in 400 steps
    updates = [row for row in rows(tmp_path / "progress.csv") if any("churn/" in name for name in row)]
    assert len(true_churn) == len(updates) > 20
    for row, (name, number, step, shares) in zip(updates, true_churn, strict=True):
        assert row[f"rlx2/{name}_updates"] == number
        assert {key: row[key] for key in row if "churn/" in key} == pytest.approx(shares)
        # The actor steps once for two steps of the critic; all updates of one call of `train` happen at its step.
        step *= 2 if name == "actor" else 1
        assert row["time/total_timesteps"] == (200 * -(-step // 200) if train else 100 + step)


def test_parts_record_too(true_churn, tmp_path):
    model = TD3(
        SparseTD3Policy,
        "Pendulum-v1",
        learning_starts=50,
        batch_size=16,
        policy_kwargs={"net_arch": [16], "actor_sparsity": 0.5, "critic_sparsity": 0.5},
        replay_buffer_class=RLx2ReplayBuffer,
        buffer_size=500,
    )
    learn_into(tmp_path, model, 300, callback=RLx2Callback(update_interval=20, buffer_check_interval=50))
    written = rows(tmp_path / "progress.csv")
    assert sum(any("churn/" in name for name in row) for row in written) == len(true_churn) > 0
    assert any("rlx2/policy_distance" in row for row in written)


def test_buffer_and_n_are_written_at_their_step(tmp_path):
    model = RLx2SAC("MlpPolicy", "Pendulum-v1", **deepcopy(SMALL), policy_distance_threshold=0.0, n_steps_delay=0.1)
    learn_into(tmp_path, model, 600, log_interval=1000)  # no dump at all
    written = rows(tmp_path / "progress.csv")
    switch, *checks = [row for row in written if "rlx2/n_steps" in row]
    assert switch == {"rlx2/n_steps": 3, "time/total_timesteps": 150}
    assert [row["time/total_timesteps"] for row in checks] == [200, 200, 300, 300, 400, 400, 500, 500, 600, 600]
    assert all(row["rlx2/policy_distance"] > 0 and row["rlx2/n_steps"] == 3 for row in checks)
    for before, after in zip(checks[::2], checks[1::2], strict=True):  # each look finds the policy too far away
        assert after["rlx2/buffer_size"] == before["rlx2/buffer_size"] - int(0.1 * before["rlx2/buffer_size"])


def test_rows_between_dumps_print_no_tables():
    tables, table_file = io.StringIO(), io.StringIO()
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", **deepcopy(SMALL))
    model.set_logger(Logger(None, [HumanOutputFormat(tables), HumanOutputFormat(table_file)]))
    model.learn(400, log_interval=1)
    assert tables.getvalue().count("total_timesteps") == 2


def test_nothing_waits_where_nothing_is_written():
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", **deepcopy(SMALL)).learn(300)
    updater = model.policy.topology_updater
    assert updater.networks["critic"].updates > 0
    assert updater.latest_updates == []


class Values(BaseCallback):
    """Logs one value at each step and dumps it."""

    def _on_step(self):
        self.logger.record("test/value", self.num_timesteps)
        self.logger.dump(self.num_timesteps)
        return True


def test_progress_file_keeps_what_is_there(tmp_path):
    for _ in range(3):
        model = TD3("MlpPolicy", "Pendulum-v1", buffer_size=100, policy_kwargs={"net_arch": [4]})
        recorder = ProgressFile(tmp_path / "run")
        model.learn(10, callback=[Values(), recorder], log_interval=None)
        recorder.on_training_end()  # as the zoo, which ends a training twice
        assert not any(isinstance(output, CSVOutputFormat) for output in model.logger.output_formats)
    files = progress_files(tmp_path / "run")
    assert [path.name for path in files] == ["progress.csv", "progress_2.csv", "progress_3.csv"]
    for path in files:
        assert [row["test/value"] for row in rows(path)] == list(range(1, 11))


def test_what_a_progress_file_holds_is_never_away(tmp_path):
    """A run that goes on may be killed at any moment: what it had written stays on the disk meanwhile."""
    (tmp_path / "progress.csv").write_text("time/total_timesteps,test/value\n10,1\n")
    model = TD3("MlpPolicy", "Pendulum-v1", buffer_size=100, policy_kwargs={"net_arch": [4]})
    seen = []

    class Look(BaseCallback):
        def _on_training_start(self):
            seen.append((tmp_path / "progress.csv").read_text())

        def _on_step(self):
            return True

    model.learn(10, callback=[ProgressFile(tmp_path, again=True), Look(), Values()], log_interval=None)
    assert seen == ["time/total_timesteps,test/value\n10,1\n"]
    assert [row["test/value"] for row in rows(tmp_path / "progress.csv")] == [1, *range(1, 11)]


def test_recording_changes_no_training(tmp_path):
    parameters = []
    for recorded in (False, True):
        model = RLx2TD3("MlpPolicy", "Pendulum-v1", **deepcopy(SMALL))
        model.learn(400, callback=ProgressFile(tmp_path) if recorded else None)
        parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy())
    np.testing.assert_array_equal(*parameters)


def test_a_layers_column_tells_its_layer():
    assert layer_column("critic", 1, 2) == "rlx2/critic_churn/1.2"
    assert layer_of("rlx2/critic_churn/1.2") == ("critic", 1, 2)
    assert layer_of("rlx2/quantile_net_churn/0.1") == ("quantile_net", 0, 1)
    assert layer_of("rlx2/critic_churn") is None
