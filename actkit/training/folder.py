"""A run's folder: where a run goes, what makes it the run that it is, and who may use it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actkit.config.compare import diff
from actkit.config.recipe import Recipe
from actkit.config.spec import Spec
from actkit.display import Display
from actkit.errors import InputError
from actkit.evaluation.run_files import spec_of_run
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

        A new folder goes again where what was handed in is refused before anything is trained.
        """
        self._assert_claimable()
        made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        try:
            with locked(self.path, warn=display.warn):
                self._claim()
                yield
        except InputError:
            if self.path in made and not any(self.path.glob("checkpoints/step-*")):
                shutil.rmtree(self.path, ignore_errors=True)
                with contextlib.suppress(OSError):
                    for place in made[1:]:
                        place.rmdir()
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
        write_json(kept, mine.to_json())
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
