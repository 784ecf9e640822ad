"""Errors a user can mend. Everything else is a bug of ours and keeps its traceback."""


class UserError(Exception):
    """What was found (and what there is), and what to do about it; the command line prints both and exits with 2.

    Args:
        what: one sentence that says what was found.
        fix: one sentence, or a command, that says what to do.
    """

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  fix: {self.fix}"


class ProfileError(UserError):
    """A target, a model or a measurement that cannot be used as it is."""
