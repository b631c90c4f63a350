"""
How a thread hands kernels' work to others that spin for a moment, without the interpreter: waking a thread that sleeps,
and waiting for its turn to hold the interpreter, takes longer than a tenth of a gradient step.

Each helper has a mailbox, integers ``[16]`` with a state, a kernel, what it works on, a job and its share. The owner of the
work posts a job into the mailboxes of its helpers, does its own share, and then takes back what nobody has begun; so a helper
that sleeps, is late or is gone costs nothing but its help.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sb3_rlx2.kernels.annotations import Integers
from sb3_rlx2.kernels.pointers import call
from sb3_rlx2.kernels.signatures import Group

STATE, FUNCTION, ARGUMENTS, JOB, FIRST, LAST = range(6)
IDLE, POSTED, TAKEN, DONE, ASLEEP, DONE_ASLEEP = range(6)
# Looks into the mailbox before a helper sleeps: about two milliseconds, longer than a step of most environments.
PATIENCE = 80_000
PAUSES = {"x86_64": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.hint", (1,)), "arm64": ("llvm.aarch64.hint", (1,))}


def _state(context, builder, array_type, array):
    return context.make_array(array_type)(context, builder, array).data


@intrinsic
def load_state(typing, mailbox):
    """The state; what its writer wrote before is visible."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_state(context, builder, mailbox, arguments[0]), "acquire", 8)

    return types.int64(mailbox), generate


@intrinsic
def store_state(typing, mailbox, state):
    """Set the state; what was written before is visible to its reader."""

    def generate(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], _state(context, builder, mailbox, arguments[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(mailbox, types.int64), generate


@intrinsic
def exchange_state(typing, mailbox, state):
    """Set the state and give the one before."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("xchg", _state(context, builder, mailbox, arguments[0]), arguments[1], "acq_rel")

    return types.int64(mailbox, types.int64), generate


@intrinsic
def change_state(typing, mailbox, expected, state):
    """Set the state if it is the expected one, and tell whether it was."""

    def generate(context, builder, signature, arguments):
        place = _state(context, builder, mailbox, arguments[0])
        return builder.extract_value(builder.cmpxchg(place, *arguments[1:], "acq_rel", "acquire"), 1)

    return types.boolean(mailbox, types.int64, types.int64), generate


@intrinsic
def pause(typing):
    """Tell the CPU that this loop spins, where it has a word for that."""

    def generate(context, builder, signature, arguments):
        name, numbers = PAUSES.get(binding.get_process_triple().split("-")[0], (None, ()))
        if name is not None:
            constants = [ir.IntType(32)(number) for number in numbers]
            function = ir.FunctionType(ir.VoidType(), [constant.type for constant in constants])
            builder.call(cgutils.get_or_insert_function(builder.module, function, name), constants)
        return context.get_dummy_value()

    return types.void(), generate


def run(function: int, arguments: int, job: int, first: int, last: int) -> None:
    """
    Run a kernel.

    :param function: address of a kernel ``(arguments, job, first, last)``, compiled by ``compile.py``
    :param arguments: address of what it works on, see :class:`Struct`
    :param job: number that the kernel knows
    :param first: the first of the tiles, or of what else the kernel works through
    :param last: the one behind the last
    """
    call(function, arguments, job, first, last)


def serve(mailbox: Integers) -> None:
    """
    Do the jobs that come into a mailbox, and return when none has come for a while.

    :param mailbox: the helper's; its state is ``ASLEEP`` or ``DONE_ASLEEP`` from now on, unless there is a job again
    """
    change_state(mailbox, ASLEEP, IDLE)
    looks = 0
    while looks < PATIENCE:
        looks += 1
        if load_state(mailbox) == POSTED and change_state(mailbox, POSTED, TAKEN):
            call(mailbox[FUNCTION], mailbox[ARGUMENTS], mailbox[JOB], mailbox[FIRST], mailbox[LAST])
            store_state(mailbox, DONE)
            looks = 0
        pause()
    if not change_state(mailbox, IDLE, ASLEEP):
        change_state(mailbox, DONE, DONE_ASLEEP)


def post(mailbox: Integers) -> int:
    """
    Offer a helper the job in its mailbox.

    :param mailbox: the helper's
    :return: the state before, ``IDLE`` or ``ASLEEP``, for :func:`collect`
    """
    return exchange_state(mailbox, POSTED)


def collect(mailbox: Integers, before: int) -> bool:
    """
    Wait until a helper has done its job, or take the job back if it has not begun.

    :param mailbox: the helper's
    :param before: the state before the job was posted
    :return: whether the helper has done it
    """
    if change_state(mailbox, POSTED, before):
        return False
    while load_state(mailbox) == TAKEN:
        pause()
    return change_state(mailbox, DONE, IDLE) or change_state(mailbox, DONE_ASLEEP, ASLEEP)


JOBS = Group("jobs", (run,))
THREADS = Group("threads", (serve, post, collect))
