"""What actkit says when something cannot be done: one clear line, what to do about it, and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OK, FAILED, BAD_INPUT, CHECK_FAILED, RESUMABLE, INTERRUPTED = 0, 1, 2, 3, 75, 130


class ActkitError(Exception):
    """A failure that is explained to the user without a traceback.

    `where` is a place (a file, a file and its line, a parameter); `help` is the remedy.
    """

    exit_code = FAILED

    def __init__(self, message: str, *, where: str | None = None, help: str | None = None) -> None:
        super().__init__(message)
        self.message, self.where, self.help = message, where, help

    def __str__(self) -> str:
        return "\n".join(
            part
            for part in (
                self.message,
                self.where and f"  --> {self.where}",
                self.help and f"  help: {self.help}",
            )
            if part
        )

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.message, self.where, self.help)


def _rebuild(cls: type[ActkitError], message: str, where: str | None, help: str | None) -> ActkitError:
    return cls(message, where=where, help=help)


class InputError(ActkitError, ValueError):
    """What the user handed in cannot be used: a flag, a config, a file, a checkpoint, a data set, a plugin."""

    exit_code = BAD_INPUT


class InputErrors(InputError):
    """Several of them, told at once."""

    def __init__(self, problems: Iterable[InputError]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple:
        return InputErrors, (self.problems,)


def nearest(word: str, choices: Iterable[str], *, listing: bool = True) -> str | None:
    """'did you mean ...?' for a misspelt word, or what there is to choose from."""
    known = sorted(set(choices))
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    close = close or [name for name in known if name.lower() == word.lower()]
    if not close and not word.endswith(
        ".gin"
    ):  # 'pdg' is near 'attack.pgd': compare the last parts of dotted names too
        tails = {name.rsplit(".", 1)[-1]: name for name in known}
        close = [tails[t] for t in difflib.get_close_matches(word.rsplit(".", 1)[-1], tails, n=2, cutoff=0.6)]
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    if listing and known:
        return "there is " + ", ".join(known)
    return None
