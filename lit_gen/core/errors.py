"""Errors that reach the user as one line. The command line turns them into an exit code, without a traceback."""


class LitGenError(Exception):
    """Base of all errors whose message is written for the user: one line that names the value and what is accepted."""

    exit_code = 1


class UsageError(LitGenError):
    """The command, the config or the data given to it is wrong; nothing was started."""

    exit_code = 2


class DivergenceError(LitGenError):
    """A loss or its gradient is NaN or infinite; the weights in memory are those of the last good step.

    Args:
        loss_name: name under which the loss is logged, e.g. ``loss_d``.
        step: number of completed updates (``trainer.global_step``).
        value: the loss as seen on this rank.
    """

    exit_code = 3

    def __init__(self, loss_name: str, step: int, value: float) -> None:
        super().__init__(f"training diverged: {loss_name} = {value} or its gradient is not finite at step {step}")
        self.loss_name, self.step, self.value = loss_name, step, value


class CheckpointError(LitGenError):
    """A checkpoint cannot be written; the one before it is as it was."""


def require(condition: bool, name: str, value: object, accepted: str) -> None:
    """Raises a UsageError that names the value and what is accepted, unless the condition holds."""
    if not condition:
        raise UsageError(f"{name} = {value}; accepted: {accepted}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty, or the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
