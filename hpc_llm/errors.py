"""How a run ends when it does not end well, each told in one line."""

__all__ = [
    "EXIT_BUDGET",
    "EXIT_FAILED",
    "EXIT_NODES",
    "EXIT_REQUEUE",
    "EXIT_SUPERSEDED",
    "EXIT_USER",
    "BudgetSpent",
    "CrashLoop",
    "Diverged",
    "FirstRankFailed",
    "Stopped",
    "Superseded",
    "UserError",
    "exit_code",
]

EXIT_FAILED = 1
EXIT_USER = 2
EXIT_BUDGET = 3  # the budget is spent: not to be started again as it is
EXIT_NODES = 4  # preflight: some nodes are bad, and are named; start again without them
EXIT_SUPERSEDED = 5  # a later start has the run folder; this process is a left-over
EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: stopped in good order, start me again


class UserError(ValueError):
    """Bad input. Its fields are printed as one line, `key=value: rule; fix`.

    `hpc-llm` prints it without a traceback (with one under HPC_LLM_DEBUG=1) and exits with 2.
    """

    def __init__(self, key: object, value: object = None, rule: object = "", fix: str = "") -> None:
        """Name what is wrong.

        `key` is a setting, a file or a command; `value` what it has, None where there is nothing to
        show (a null setting is the string "null"); `rule` what it must be, and what exists where
        that helps, or the error that it wraps; `fix` what to do about it.
        """
        super().__init__(key, value, rule, fix)
        self.key, self.value, self.rule, self.fix = str(key), value, str(rule), fix

    def __str__(self) -> str:
        """The one line."""
        place = self.key if self.value is None else f"{self.key}={self.value}"
        text = "; ".join(filter(None, (self.rule, self.fix)))
        return ": ".join(filter(None, (place, text)))


class CrashLoop(UserError):
    """Several starts of the job in a row failed at the same step."""


class Superseded(Exception):
    """A later start has taken the run folder over: this process may not write there any more."""


class Stopped(Exception):
    """The run was asked to stop; what was done is on disk and the same command goes on."""


class BudgetSpent(Stopped):
    """The budget is spent; what was done is on disk, and a larger budget goes on."""


class Diverged(ArithmeticError):
    """The loss or the gradient is NaN or infinite."""


class FirstRankFailed(Exception):
    """Rank 0 failed while this rank waited; rank 0 reports why, and both end with its code."""

    def __init__(self, code: int) -> None:
        """`code` is the exit code of rank 0."""
        super().__init__(f"rank 0 failed with exit code {code}")
        self.code = code


def exit_code(error: BaseException) -> int:
    """Return the exit code that an error ends the command with."""
    if isinstance(error, UserError):
        return EXIT_USER
    if isinstance(error, BudgetSpent):
        return EXIT_BUDGET
    if isinstance(error, Stopped):
        return EXIT_REQUEUE
    if isinstance(error, Superseded):
        return EXIT_SUPERSEDED
    return error.code if isinstance(error, FirstRankFailed) else EXIT_FAILED
