"""
How a thread hands kernels' work to others that spin for a moment, without the interpreter: waking a thread that sleeps,
and waiting for its turn to hold the interpreter, takes longer than a tenth of a gradient step.

Each thread has a mailbox, integers ``[16]`` with a state, a job and its tiles. The owner of the work posts a job into the
mailboxes of its helpers, does its own share, and then takes back what nobody has begun; so a helper that sleeps, is late or
is gone costs nothing but its help.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sb3_rlx2.backends.options import kernel

STATE, GENERATION, JOB, FIRST_TILE, LAST_TILE = range(5)
IDLE, POSTED, TAKEN, DONE, ASLEEP, DONE_ASLEEP = range(6)
NOTHING = -1  # no job
OWN = -1  # the generation of a mailbox whose job its owner does
PATIENCE = (
    80_000  # looks into the mailbox before a helper sleeps: about two milliseconds, longer than a step of most environments
)
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


@kernel
def next_job(mailbox, generation):
    """
    Wait for a job.

    :param mailbox: the helper's
    :param generation: of the arrays that the helper knows; for others it has to come back and fetch them
    :return: the job, or ``NOTHING``: sleep if the state says so, else come again with the arrays of the newest generation
    """
    if generation == OWN:
        return mailbox[JOB]
    change_state(mailbox, ASLEEP, IDLE)
    for _ in range(PATIENCE):
        if load_state(mailbox) == POSTED:
            if mailbox[GENERATION] != generation:
                return NOTHING
            if change_state(mailbox, POSTED, TAKEN):
                return mailbox[JOB]
        pause()
    if not change_state(mailbox, IDLE, ASLEEP):
        change_state(mailbox, DONE, DONE_ASLEEP)
    return NOTHING


@kernel
def deliver(mailbox, generation):
    """Say that the job is done, and wait for the next; the owner of a mailbox has none."""
    if generation == OWN:
        return NOTHING
    store_state(mailbox, DONE)
    return next_job(mailbox, generation)


def post(mailbox):
    """
    Offer a helper the job in its mailbox.

    :param mailbox: the helper's
    :return: the state before, ``IDLE`` or ``ASLEEP``, for :func:`collect`
    """
    return exchange_state(mailbox, POSTED)


def collect(mailbox, before):
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
