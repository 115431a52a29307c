"""The group that all commands belong to: errors that actkit explains become one line and an exit code. Results on stdout, progress and errors on stderr; torch is imported only by commands that need it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from actkit import __version__, errors
from actkit.errors import ActkitError, InputError

# By which a shell's completion script asks for what may follow: click's own protocol.
COMPLETE = "_ACTKIT_COMPLETE"


class Commands(click.Group):
    """Errors that actkit explains become one clear line and an exit code; any other keeps its traceback."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        # Before torch is imported: OpenMP's threads spin while they wait, which on a busy machine costs several times the work itself.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        # A path may hold bytes that are no text.
        with contextlib.suppress(AttributeError):
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            code = super().main(args, prog_name, COMPLETE, standalone_mode=False, **extra)
        except click.exceptions.Abort:
            code = errors.INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            code = errors.INTERRUPTED
        except BrokenPipeError:
            # `actkit list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = errors.OK
        except (ActkitError, OSError, RuntimeError) as error:
            explained = _explained(error)
            if explained is None or os.environ.get("ACTKIT_DEBUG"):
                raise
            for problem in explained.problems if isinstance(explained, InputError) else [explained]:
                click.echo(f"{click.style('error:', fg='red', bold=True)} {problem}", err=True)
            code = explained.exit_code
        sys.exit(code if isinstance(code, int) else errors.OK)


def _explained(error: Exception) -> ActkitError | None:
    """An error in terms of what the user can do about it; None for one that is actkit's own fault."""
    if isinstance(error, ActkitError):
        return error
    if isinstance(error, OSError):
        return InputError(
            f"a file cannot be used: {error.strerror or error}",
            where=str(error.filename) if error.filename else None,
            help="choose another place, or make room",
        )
    from actkit.datasets.decoding import worker_error

    return worker_error(error) if isinstance(error, RuntimeError) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="actkit")
def main() -> None:
    """Train and examine adversarially robust image classifiers.

    \b
    actkit run gin/act_digits.gin              train ACT on digits, examine both models
    actkit run gin/act_cifar10.gin --dry-run   what it would do, and what that costs
    actkit probe --ckpt example:act_digits     examine a trained model: this one comes along
    actkit list                                every component; `actkit list recipes` what can be run
    """
