"""What a person sees: the live display of a training, the table at its end. Results go to stdout, all else to stderr."""

from __future__ import annotations

import contextlib
import csv
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from actkit.errors import InputError
from actkit.spec import Spec


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def titles(results: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[tuple[str, str], str]:
    """What the numbers that probes want shown are called in a table, by (label of the probe, number).

    Where columns were measured with different eps, or on different numbers of images, each title says its own.
    """
    wanted: dict[tuple[str, str], str] = {}
    eps: dict[tuple[str, str], str] = {}
    images: dict[tuple[str, str], str] = {}
    for name, result in results:
        for column in result["columns"]:
            key = (name.rpartition(".")[2], column["number"])
            wanted.setdefault(key, column["title"])
            if result["threat"]:
                eps[key] = f"{result['threat']['norm']} {result['threat']['eps'] or 'swept'}"
            if result["images"]:
                images[key] = f"{result['images']:,} images"
    apart = [said for said in (eps, images) if len(set(said.values())) > 1]
    made = {}
    for key, title in wanted.items():
        notes = [said[key] for said in apart if not said.get(key, "swept").endswith("swept")]
        made[key] = title + (f" ({', '.join(notes)})" if notes else "")
    shown = list(made.values())
    return {key: f"{key[0]}: {title}" if shown.count(title) > 1 else title for key, title in made.items()}


def rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a summary: one row a model; each probe says which of its numbers are columns, and how they are shown.

    What a red flag makes doubtful is marked.
    """
    results = summary["results"]
    named = titles(results.items())
    percents = _percents(results.items())
    body = []
    models = dict.fromkeys(name.rpartition(".")[0] for name, r in results.items() if r["columns"])
    for model in models:
        cells = [model]
        for label, number in named:
            result = results.get(f"{model}.{label}", {})
            value = result.get("numbers", {}).get(number)
            shown = "-" if value is None else percent(value) if percents[label, number] else f"{value:.4g}"
            cells.append(shown if result.get("verified", True) else f"{shown} {UNVERIFIED}")
        body.append(cells)
    return ["model", *named.values()], body


def _percents(results: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[tuple[str, str], bool]:
    return {
        (name.rpartition(".")[2], column["number"]): column["percent"]
        for name, result in results
        for column in result["columns"]
    }


def unit(titled: Mapping[str, bool]) -> str:
    """Of columns, by whether they are percentages: 'percent, except weight norm'."""
    plain = [title for title, is_percent in titled.items() if not is_percent]
    if len(plain) == len(titled):
        return "no percentages"
    return "percent" + (f", except {', '.join(plain)}" if plain else "")


UNVERIFIED = "UNVERIFIED"


def write_csv(path: Path, summaries: Sequence[Mapping[str, Any]]) -> None:
    """Every number of every probe and model, one a line. Raises `InputError` when the file cannot be written."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["model", "probe", "number", "value", "images", "norm", "eps", "verified", "data"])
            for summary in summaries:
                for name, result in summary["results"].items():
                    model, _, probe = name.rpartition(".")
                    threat = result["threat"] or {}
                    for number, value in result["numbers"].items():
                        table.writerow(
                            [model, probe, number, value, result["images"], threat.get("norm"), threat.get("eps"),
                             result.get("verified"), summary["data"]]
                        )  # fmt: skip
    except OSError as error:
        raise InputError(
            f"the file cannot be written: {error.strerror}", where=str(path), help="choose another place"
        ) from error


def unverified(summary: Mapping[str, Any]) -> bool:
    """Whether a check raised a red flag, here or in an earlier audit of these models."""
    return any(flag["level"] == "red" for _, flag in flags(summary)) or any(
        not result.get("verified", True) for result in summary["results"].values()
    )


def flags(summary: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """(model, flag) of everything that was checked."""
    return [(name.rpartition(".")[0], flag) for name, r in summary["results"].items() for flag in r["flags"]]


def caption(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers mean: data, seeds and every probe's settings."""
    lines = []
    named, percents = titles(summary["results"].items()), _percents(summary["results"].items())
    how = unit({title: percents[key] for key, title in named.items()})
    if "models" in summary:
        trainings = {_trained(m) for m in summary["models"].values()}
        if len(trainings) == 1:
            lines.append(f"{how}; {summary['data']}, {trainings.pop()}")
        else:
            lines.append(f"{how}; {summary['data']}")
            lines += [f"{name}: {_trained(m)}, {m['file']}" for name, m in summary["models"].items()]
    else:
        best = f", the best of {summary['trained_epochs']} by {summary['best']}" if summary.get("best") else ""
        lines.append(f"{how}; {summary['data']}, {_trained(summary)}{best}")
    for probe in map(Spec.from_json, summary["evaluation"]):
        label = f"{probe.label}: " if probe.label else ""
        split, limit = probe.get("split"), probe.get("limit")
        if split is None:  # it looks at no image
            lines.append(f"{label}{probe!r}")
            continue
        size = summary["sizes"].get(split, 0)
        seen = [r.get("images") for name, r in summary["results"].items() if name.rpartition(".")[2] == probe.title]
        looked = min([size, *(n for n in (limit, *seen) if n is not None)])
        lines.append(f"{label}{probe!r} on {looked:,}{f' of {size:,}' if looked < size else ''} {split} images")
    return lines


def _trained(model: Mapping[str, Any]) -> str:
    if model.get("imported"):
        return f"imported from {model['imported']['file']}"
    return f"seed {model['seed']}, {model['epochs']} epochs ({model['steps']:,} batches)"


_STYLES = {"green": "green", "yellow": "yellow", "red": "bold red"}


def _width(table: list[list[str]]) -> int:
    return sum(max(map(len, column)) + 4 for column in zip(*table, strict=True))


def print_table(console: Console, summary: Mapping[str, Any], *, every_flag: bool = False) -> None:
    """The table, what the checks found (the green ones counted, or, if `every_flag`, written out), and what the numbers mean."""
    titles, body = rows(summary)
    if len(titles) > 1:
        if (
            console.is_terminal and _width([titles, *body]) > console.width
        ):  # a row for each number, rather than numbers cut off
            titles, *body = map(list, zip(titles, *body, strict=True))
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
        for i, title in enumerate(titles):
            table.add_column(title, justify="right" if i else "left", no_wrap=True)
        for row in body:
            table.add_row(*row, style="red" if any(cell.endswith(UNVERIFIED) for cell in row) else "")
        before, console.width = console.width, max(console.width, _width([titles, *body]))
        console.print(table)
        console.width = before
    for said in dict.fromkeys(said for r in summary["results"].values() for said in r.get("because", ())):
        console.print(f"{UNVERIFIED}: {said}", style="bold red", highlight=False, soft_wrap=True, markup=False)
    for model in dict.fromkeys(model for model, _ in flags(summary)):
        found = [flag for name, flag in flags(summary) if name == model]
        counts = [f"{sum(f['level'] == level for f in found)} {level}" for level in _STYLES]
        console.print(f"checks of {model}: {', '.join(counts)}", highlight=False, markup=False)
        for flag in found:
            if every_flag or flag["level"] != "green":
                console.print(
                    f"  {flag['level']:<6} {flag['check']}: {flag['said']}", style=_STYLES[flag["level"]],
                    highlight=False, soft_wrap=True, markup=False,
                )  # fmt: skip
    for line in caption(summary):
        console.print(line, style="dim", highlight=False, soft_wrap=True, markup=False)


class Display:
    """Tells on stderr what happens: live in a terminal, one plain line an epoch elsewhere."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet

    def say(self, text: str, style: str = "") -> None:
        if not self.quiet:
            self.console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)

    def note(self, text: str) -> None:
        self.say(text)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def working(self) -> Iterator[Callable[[str, int, int], None]]:
        """Yields what tells how far an examination, a download or the reading of a data set is: (what, part, parts at most). A bar in a terminal, elsewhere a line every half minute."""
        if self.quiet:
            yield lambda what, part, parts: None
        elif self.console.is_terminal:
            bar = Progress(
                TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn(compact=True),
                console=self.console, transient=True,
            )  # fmt: skip
            tasks: dict[str, Any] = {}
            with bar:

                def tell(what: str, part: int, parts: int) -> None:
                    if what not in tasks:
                        for old in tasks.values():
                            bar.update(old, visible=False)
                        tasks[what] = bar.add_task(escape(what), total=parts)
                    bar.update(tasks[what], completed=part - 1, total=parts)

                yield tell
        else:
            said = time.monotonic()

            def line(what: str, part: int, parts: int) -> None:
                nonlocal said
                if time.monotonic() - said > 30:
                    said = time.monotonic()
                    self.say(f"  {what}: {part:,} of {parts:,}")

            yield line

    def start(self, run: Any, data: Any, roles: Mapping[str, Any], folder: Path, device: Any, *, resumed: Any) -> None:
        self.say(f"objective  {run.objective.spec!r}")
        self.say(f"data       {data.name}: {data.counted}, {data.num_classes} classes")
        for name, role in roles.items():
            count = sum(p.numel() for p in role.model.parameters())
            self.say(f"{name:<10} {run.roles[name].backbone.spec!r}: {count:,} parameters")
        self.say(f"run        {folder} on {device}, {run.precision}")
        if resumed is not None:
            self.say(f"resumed    after {resumed.step:,} batches ({resumed.epoch} epochs)")

    @contextlib.contextmanager
    def training(self, run: Any, position: Any) -> Iterator[_Plain | _Live]:
        if self.quiet or not self.console.is_terminal:
            yield _Plain(self, run)
            return
        live = _Live(self, run, position)
        with Live(live.progress, console=self.console, refresh_per_second=8):
            yield live


def describe(entry: Mapping[str, Any]) -> str:
    """One epoch on one line: losses and the monitored accuracies by role."""
    parts = []
    seen = entry.get("monitor", {})
    for role, loss in entry["loss"].items():
        text = f"{role}: loss {loss:.3f}"
        for name, found in seen.items():
            if name.rpartition(".")[0] == role and "clean" in found and "worst_case" not in found:
                text += f" clean {100 * found['clean']:.1f}"
            elif name.rpartition(".")[0] == role and (value := robust_number(found)) is not None:
                text += f" robust {100 * value:.1f}"
        parts.append(text)
    return " | ".join(parts)


def robust_number(found: Mapping[str, float]) -> Any:
    """Of the numbers of a probe under attack, the one to watch: the worst run, or, in the other mode, the worst case."""
    return found.get("worst_run", found.get("worst_case"))


class _Plain:
    def __init__(self, display: Display, run: Any) -> None:
        self.display, self.run, self.began = display, run, time.monotonic()
        self.first: int | None = None

    def batch(self, record: Any) -> None:
        pass

    def epoch(self, entry: Mapping[str, Any]) -> None:
        self.first = entry["epoch"] if self.first is None else self.first
        done = entry["epoch"] - self.first + 1
        left = (time.monotonic() - self.began) / done * (self.run.epochs - entry["epoch"])
        self.display.say(
            f"epoch {entry['epoch']}/{self.run.epochs}  {describe(entry)}  {entry['images_per_second']:.0f} images/s  {_duration(left)} left"
        )


class _Live(_Plain):
    def __init__(self, display: Display, run: Any, position: Any) -> None:
        super().__init__(display, run)
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[losses]}"), TimeRemainingColumn(compact=True), console=display.console,
        )  # fmt: skip
        self.task: Any = None
        self.position = position
        self.read = 0.0
        self.seconds, self.images = 0.0, 0

    def batch(self, record: Any) -> None:
        if self.task is None:
            total = min(self.run.epochs * record.batches, self.run.steps or self.run.epochs * record.batches)
            self.task = self.progress.add_task(
                "", total=total, completed=record.position.step, epoch="", speed="", losses=""
            )
        self.seconds, self.images = self.seconds + record.seconds, self.images + record.images
        now = time.monotonic()
        if now - self.read < 0.5 and not record.epoch_ended:  # reading the losses waits for the device
            self.progress.update(self.task, completed=record.position.step)
            return
        self.read = now
        epoch = record.position.epoch + (not record.epoch_ended)
        losses = " ".join(f"{name} {value:.3f}" for name, value in record.losses.items())
        self.progress.update(
            self.task, completed=record.position.step, epoch=f"{epoch}/{self.run.epochs}", losses=f"loss {escape(losses)}",
            speed=f"{self.images / max(self.seconds, 1e-9):.0f} images/s",
        )  # fmt: skip

    def epoch(self, entry: Mapping[str, Any]) -> None:
        self.display.say(f"epoch {entry['epoch']}/{self.run.epochs}  {describe(entry)}")
        self.seconds, self.images = 0.0, 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
