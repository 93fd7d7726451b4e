"""Errors and exit codes of a run; each error is reported in one line."""

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
    "RankFailed",
    "Stopped",
    "Superseded",
    "UserError",
    "exit_code",
]

EXIT_FAILED = 1
EXIT_USER = 2
EXIT_BUDGET = 3  # the budget is spent: do not restart without a larger one
EXIT_NODES = 4  # preflight found bad nodes: restart without them
EXIT_SUPERSEDED = 5  # a later start has the run folder; this process is stale
EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: stopped cleanly, restart to continue


class UserError(ValueError):
    """Bad input. Its fields are printed as one line, `key=value: rule; fix`.

    `hpc-llm` prints it without a traceback (with one under HPC_LLM_DEBUG=1) and exits with 2.
    """

    def __init__(self, key: object, value: object = None, rule: object = "", fix: str = "") -> None:
        """Describe the error.

        `key` is a setting, a file or a command; `value` its value, None if there is nothing to show
        (a null setting is the string "null"); `rule` what it must be, possibly with the existing
        choices, or the wrapped error; `fix` how to fix it.
        """
        super().__init__(key, value, rule, fix)
        self.key, self.value, self.rule, self.fix = str(key), value, str(rule), fix

    def __str__(self) -> str:
        """The error as one line."""
        place = self.key if self.value is None else f"{self.key}={self.value}"
        text = "; ".join(filter(None, (self.rule, self.fix)))
        return ": ".join(filter(None, (place, text)))


class CrashLoop(UserError):
    """Several consecutive starts of the job failed at the same step."""


class Superseded(Exception):
    """A later start has taken over the run folder: this process may no longer write to it."""


class Stopped(Exception):
    """A stop was requested; progress is saved, and the same command resumes."""


class BudgetSpent(Stopped):
    """The budget is spent; progress is saved, and a larger budget resumes."""


class Diverged(ArithmeticError):
    """The loss or the gradient is NaN or infinite."""


class RankFailed(Exception):
    """Another rank failed; that rank reports the error, and all exit with its code."""

    def __init__(self, rank: int, code: int) -> None:
        """`rank` failed with the exit code `code`."""
        super().__init__(f"rank {rank} failed with exit code {code}")
        self.rank, self.code = rank, code


class FirstRankFailed(RankFailed):
    """Rank 0 failed while this rank waited."""

    def __init__(self, code: int) -> None:
        """`code` is the exit code of rank 0."""
        super().__init__(0, code)


def exit_code(error: BaseException) -> int:
    """Return the exit code of the command for an error."""
    if isinstance(error, UserError):
        return EXIT_USER
    if isinstance(error, BudgetSpent):
        return EXIT_BUDGET
    if isinstance(error, Stopped):
        return EXIT_REQUEUE
    if isinstance(error, Superseded):
        return EXIT_SUPERSEDED
    return error.code if isinstance(error, RankFailed) else EXIT_FAILED
