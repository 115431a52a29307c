"""A run's folder: where a run goes, what makes it the run that it is, and who may use it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actkit.config.compare import diff
from actkit.config.plugins import plugins_of
from actkit.config.recipe import Recipe
from actkit.config.spec import Spec
from actkit.display import Display
from actkit.errors import ActkitError, InputError
from actkit.evaluation.run_files import spec_of_run
from actkit.evaluation.run_states import forget_failure, keep_failure
from actkit.files import locked, sha256_of, write_json, write_text


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Args:
        identity: what makes the run the run that it is, as `config.json` holds it.
        text: the recipe, as `config.gin` holds it.
    """

    path: Path
    identity: Spec
    text: str

    @staticmethod
    def of(recipe: Recipe, out: str | None = None) -> RunFolder:
        """The folder that this recipe's run takes: always the same for the same settings, unless `out` says which."""
        identity = identity_of(recipe.spec)
        if out is not None:
            return RunFolder(Path(out), identity, recipe.text)
        name = f"seed{identity.kwargs['seed']}-{sha256_of(identity.to_json(), 8)}"
        return RunFolder(Path("runs") / Path(recipe.source).stem / name, identity, recipe.text)

    @contextlib.contextmanager
    def claimed(self, display: Display) -> Iterator[None]:
        """Hold the folder for this run alone. Raises `InputError` where it is not this run's to use.

        What it made of it goes again where the run ends before anything is trained: where data are missing, say.
        """
        self._assert_claimable()
        made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        before = {place.name for place in self.path.iterdir()} if self.path.is_dir() else None
        ours = False
        try:
            with locked(self.path, warn=display.warn):
                ours = True
                self._claim()
                with self._failure_kept():
                    yield
        except (Exception, KeyboardInterrupt) as error:
            # A training that failed leaves what it was.
            failed = isinstance(error, ActkitError) and not isinstance(error, InputError)
            # Where another process holds it, all of it is that one's.
            if ours and not failed and not self._has_trained():
                self._unclaim(made, before)
            raise

    def _has_trained(self) -> bool:
        lines = self.path / "metrics.jsonl"
        return any(self.path.glob("checkpoints/step-*")) or (lines.is_file() and lines.stat().st_size > 0)

    def _unclaim(self, made: Sequence[Path], before: Collection[str] | None) -> None:
        """Take away what `claimed` and the run made: the folder and those above it, or, where it was there, what is new in it."""
        if before is None:
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):
                for place in made[1:]:
                    place.rmdir()
            return
        # It is a run's from before, which keeps its recipe.
        if "config.json" in before:
            return
        for place in self.path.iterdir():
            if place.name not in before and place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            elif place.name not in before:
                place.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _failure_kept(self) -> Iterator[None]:
        """What ends this run by an error is said in its folder, for whoever asks later how far it is; until it goes on."""
        forget_failure(self.path)
        try:
            yield
        except Exception as error:
            keep_failure(self.path, error)
            raise

    def _assert_claimable(self) -> None:
        """A folder with anything in it is a run's, or it is left alone."""
        if (
            self.path.is_dir()
            and not (self.path / "config.json").is_file()
            and any(not p.name.startswith(".") for p in self.path.iterdir())
        ):
            raise InputError(
                "the folder is not empty and holds no run", where=str(self.path), help="choose another --out"
            )

    def _claim(self) -> None:
        """Make the folder that of this run. One that holds no checkpoint yet may change its mind: nothing is lost."""
        kept = self.path / "config.json"
        mine = Spec.from_json(self.identity.to_json())
        if kept.is_file() and (any(self.path.glob("checkpoints/step-*")) or (self.path / "summary.json").is_file()):
            other = spec_of_run(self.path)
            if other != mine:
                changes = diff(other, mine)
                shown = "\n".join(f"      {path}: {a!r} there, {b!r} now" for path, a, b in changes[:8])
                raise InputError(
                    "the folder holds a run with other settings\n" + shown,
                    where=str(self.path),
                    help="choose another --out; a run's settings do not change",
                )
        plugins = plugins_of(self.identity)
        write_json(kept, {**mine.to_json(), **({"plugins": plugins} if plugins else {})})
        write_text(self.path / "config.gin", self.text)


def folder_of(recipe: Recipe, out: str | None = None) -> Path:
    """Where a run of this recipe goes: always the same place for the same settings."""
    return RunFolder.of(recipe, out).path


def identity_of(spec: Spec) -> Spec:
    """What makes a run the run that it is: how its data are fetched and read does not; a seed does, whether it was written or is the default."""
    return spec.replace(data=without_io_settings(spec.kwargs["data"]), seed=spec.kwargs.get("seed", 0))


# Settings of a data set that no pixel depends on.
_IO_SETTINGS = {"download", "workers", "timeout"}


def without_io_settings(data: Spec) -> Spec:
    """A data set's Spec without what only says how it is fetched and read."""
    kept = {name: value for name, value in data.kwargs.items() if name not in _IO_SETTINGS}
    inner = {name: without_io_settings(value) for name, value in kept.items() if isinstance(value, Spec)}
    return Spec(data.kind, data.name, {**kept, **inner})
