"""What actkit says when something cannot be done: one clear line, what to do about it, and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OK, FAILED, BAD_INPUT, CHECK_FAILED, RESUMABLE, INTERRUPTED = 0, 1, 2, 3, 75, 130


class ActkitError(Exception):
    """A failure that is explained to the user without a traceback.

    `message` is what is wrong, in one line; `where` a place (a file, a file and its line, a parameter); `help` the remedy.
    """

    exit_code = FAILED

    def __init__(self, message: str, *, where: str | None = None, help: str | None = None) -> None:
        super().__init__(message)
        self.message, self.where, self.help = message, where, help

    def __str__(self) -> str:
        lines = (self.message, self.where and f"  --> {self.where}", self.help and f"  help: {self.help}")
        return "\n".join(line for line in lines if line)

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.message, self.where, self.help)


def _rebuild(cls: type[ActkitError], message: str, where: str | None, help: str | None) -> ActkitError:
    return cls(message, where=where, help=help)


class InputError(ActkitError, ValueError):
    """What the user handed in cannot be used: a flag, a config, a file, a checkpoint, a data set, a plugin. The command ends with exit code 2.

    `message` is what is wrong, in one line; `where` a place (a file, a file and its line, a parameter); `help` the remedy.
    """

    exit_code = BAD_INPUT

    @property
    def problems(self) -> list[InputError]:
        """What is wrong, one by one."""
        return [self]

    def at(self, place: object) -> InputError:
        """The same said of a place (None: of none): who finds an error seldom knows the file and line, who asked does."""
        return InputError(self.message, where=None if place is None else str(place), help=self.help)


class InputErrors(InputError):
    """Several of them, reported at once."""

    def __init__(self, problems: Iterable[InputError]) -> None:
        self._problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self._problems))

    @property
    def problems(self) -> list[InputError]:
        return self._problems

    def __reduce__(self) -> tuple:
        return InputErrors, (self._problems,)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; the name of its class where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def raise_all(problems: Iterable[InputError]) -> None:
    """Raise what is wrong as one error, each problem in it once; nothing where there is none."""
    unique = list({str(problem): problem for problem in problems}.values())
    if unique:
        raise unique[0] if len(unique) == 1 else InputErrors(unique)


def raise_first(problems: Iterable[tuple[str, InputError]]) -> None:
    """Raise the first of what is wrong with hyper-parameters, pairs of the parameter and the error; nothing where there is none."""
    for _, problem in problems:
        raise problem


def nearest(word: str, choices: Iterable[str], *, listing: bool = True) -> str | None:
    """'did you mean ...?' for a misspelt word, or what there is to choose from."""
    known = sorted(set(choices))
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    close = close or [name for name in known if name.lower() == word.lower()]
    # 'pdg' is near 'attack.pgd': compare the last parts of dotted names too.
    if not close and not word.endswith(".gin"):
        tails = {name.rsplit(".", 1)[-1]: name for name in known}
        close = [tails[t] for t in difflib.get_close_matches(word.rsplit(".", 1)[-1], tails, n=2, cutoff=0.6)]
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    if listing and known:
        return "there is " + ", ".join(known)
    return None
