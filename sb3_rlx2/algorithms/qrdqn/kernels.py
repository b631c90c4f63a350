"""QR-DQN's gradient step as one job, for some tiles of the batch (see ``kernels/mlp.py``)."""

from sb3_rlx2.kernels.losses import put_actions
from sb3_rlx2.kernels.mlp import FIRST, mlp_learn
from sb3_rlx2.kernels.quantiles import quantile_huber
from sb3_rlx2.kernels.signatures import Group
from sb3_rlx2.kernels.value_based import ValueArrays, value_forward


def qrdqn(arrays: ValueArrays, job: int, first: int, last: int) -> None:
    """
    Compute the gradient of Huber's quantile loss of the taken actions' quantiles, summed over these, a mean over the targets.

    :param arrays: what the thread works on
    :param job: ``FIT``
    :param first: first tile
    :param last: tile behind the last one
    """
    taken, target, batch = arrays.taken, arrays.target, arrays.returns.size
    share = 1 / target.shape[1]
    value_forward(arrays, first, last)
    arrays.sums[0] = share * quantile_huber(taken, FIRST, target, batch, share / batch, taken, first, last)
    put_actions(arrays.taken, arrays.inputs, arrays.outputs, first, last)
    arrays.sums[1] = mlp_learn(arrays.online, arrays.inputs, arrays.outputs, first, last)


QRDQN = Group("qrdqn", jobs=(qrdqn,))
