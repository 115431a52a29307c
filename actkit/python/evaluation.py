"""What an examination from Python found: a table, numbers, arrays, intervals, one verdict."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from actkit.errors import ActkitError, InputError, nearest
from actkit.evaluation.summary import Found, Summary
from actkit.evaluation.threat import too_short
from actkit.findings import wilson
from actkit.probes import Flag, Result, ResultName
from actkit.python.verdict import held_by_all, verdict_of
from actkit.reports.grids import Grid, as_text
from actkit.reports.rows import UNVERIFIED, percent, percents


class Row(NamedTuple):
    """One number of one probe of one model."""

    model: str
    probe: str
    number: str
    title: str
    value: float | None
    # The 95 % interval of a rate; None of what is none.
    low: float | None
    high: float | None
    images: int | None
    norm: str | None
    eps: str | None
    # Of a number that an attack gave, whether it can be believed; None of others.
    verified: bool | None
    # Whether a table shows it, and in percent.
    shown: bool
    percent: bool


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What probes found of one model or several. It prints as a table that ends in a verdict, and shows itself in a notebook.

    Args:
        summary: the same as `actkit probe` writes to summary.json.
        raw: every probe's `Result`, by '<model>.<probe>'.
    """

    summary: Summary
    raw: Mapping[str, Result]

    # -- of which models ---------------------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        """What the models are called; of a probe of two, 'source>target'."""
        return self.summary.model_names

    def __getitem__(self, model: str) -> Evaluation:
        """What was found of one of the models."""
        if model not in self.models:
            raise InputError(f"there is no model {model!r} here", help=nearest(model, self.models))
        results = {name: found for name, found in self.summary.results.items() if name.model == model}
        summary = dataclasses.replace(self.summary, results=results)
        return Evaluation(summary, {str(name): self.raw[str(name)] for name in results})

    def _by_model(self, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return next(iter(made.values())) if len(made) == 1 else made

    # -- numbers -----------------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, Any]:
        """Every number, by probe and name: `numbers["accuracy"]["clean"]`, rates as fractions. Of several models, by model first."""
        return self._by_model(
            {m: {label: dict(f.numbers) for label, f in self.summary.of(m).items()} for m in self.models}
        )

    @property
    def intervals(self) -> dict[str, Any]:
        """The 95 % intervals of the rates (Wilson 1927), (low, high) as fractions: as `numbers`, where there is one."""
        made: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            if row.low is not None:
                made.setdefault(row.model, {}).setdefault(row.probe, {})[row.number] = (row.low, row.high)
        return self._by_model(made) if made else {}

    @property
    def examples(self) -> dict[str, Any]:
        """What happened to each example, by probe: whether it stays right in every run, (n,) bool, in the order of the data; of a probe that tells
        something else, its first array. `results` has all. Of several models, by model first."""
        made: dict[str, dict[str, np.ndarray]] = {model: {} for model in self.models}
        for name, result in self.raw.items():
            model, label = ResultName.parse(name)
            held = held_by_all(result)
            told = held if held is not None else next(iter(result.examples.values()), None)
            if told is not None:
                made[model][label] = told.numpy()
        return self._by_model(made)

    @property
    def results(self) -> dict[str, Any]:
        """Every probe's `actkit.Result`, by probe; of several models, by model first."""
        made: dict[str, dict[str, Result]] = {model: {} for model in self.models}
        for name, result in self.raw.items():
            model, label = ResultName.parse(name)
            made[model][label] = result
        return self._by_model(made)

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What checks found, of all models."""
        return tuple(flag for found in self.summary.results.values() for flag in found.flags)

    @property
    def verdict(self) -> str:
        """One line: how many images stay right at most, under what, by which attack, and whether a check objects. Of several models a line each."""
        said = {model: self._verdict(model) for model in self.models if ">" not in model}
        return "\n".join(said.values() if len(said) == 1 else [f"{model}: {line}" for model, line in said.items()])

    def _verdict(self, model: str) -> str:
        found = self.summary.of(model)
        return verdict_of(found, {label: self.raw[str(ResultName(model, label))] for label in found})

    # -- as a table --------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """Every number, with its interval and what it was measured under."""
        named, in_percent = self._titles(), percents(self.summary.results.items())
        for name, found in self.summary.results.items():
            for number, value in found.numbers.items():
                key = (name.label, number)
                is_share = number not in ("std", "starts", "draws", "chance")
                low, high = self._interval(self.raw[str(name)], found, value if is_share else None)
                yield Row(
                    model=name.model,
                    probe=name.label,
                    number=number,
                    title=named.get(key, number),
                    value=value,
                    low=low,
                    high=high,
                    images=found.images,
                    norm=found.threat.norm if found.threat else None,
                    eps=found.threat.written if found.threat else None,
                    verified=found.verified,
                    shown=key in named,
                    percent=in_percent.get(key, False),
                )

    def _titles(self) -> dict[tuple[str, str], str]:
        """What the numbers that probes want shown are called: within what they were measured stands beside them."""
        made = {
            (name.label, column.number): column.title
            for name, found in self.summary.results.items()
            for column in found.columns
        }
        shown = list(made.values())
        return {key: f"{key[0]}: {title}" if shown.count(title) > 1 else title for key, title in made.items()}

    @staticmethod
    def _interval(result: Result, found: Found, value: float | None) -> tuple[float, float] | tuple[None, None]:
        """Of a share of the images; a mean of something else, or over several starts, has none."""
        told = any(array.dtype == torch.bool for array in result.examples.values())
        if value is None or not found.images or not told or not 0 <= value <= 1:
            return None, None
        hits = round(value * found.images)
        return wilson(hits, found.images) if abs(hits - value * found.images) < 1e-6 else (None, None)

    def _grid(self) -> Grid:
        """A line a number; of several models a column each."""
        lines: dict[tuple[str, str], dict[str, Row]] = {}
        for row in self.rows():
            if row.shown:
                lines.setdefault((row.probe, row.number), {})[row.model] = row
        models = [model for model in self.models if any(model in line for line in lines.values())]
        body = []
        for line in lines.values():
            one = next(iter(line.values()))
            budget = f"{one.norm} {one.eps}" if one.eps else ""
            cells = [_cell(line.get(model)) for model in models]
            body.append([one.title, budget, *cells, f"{one.images:,}" if one.images else ""])
        return Grid(["", "within", *models, "images"], body, [], 2)

    @property
    def caption(self) -> list[str]:
        """What the numbers mean: the data, every probe's settings, and what checks found, the green ones counted."""
        sizes = ", ".join(f"{self.summary.sizes[split]:,} {split} images" for split in self.summary.data_fingerprint)
        about = f"on {self.summary.device}, actkit {self.summary.versions.get('actkit', '')}"
        made = [f"{self.summary.data}: {sizes}; {about}; in brackets 95 % intervals"]
        for spec in self.summary.evaluation:
            made += [f"{spec.title}: {spec!r}", *(f"  {said}" for said in too_short(spec))]
        for model, flags in self.summary.flags.items():
            counts = ", ".join(
                f"{sum(f.level == level for f in flags)} {level}" for level in ("green", "yellow", "red")
            )
            made.append(f"checks of {model}: {counts}")
            made += [f"  {flag.level} {flag.check}: {flag.said}" for flag in flags if flag.level != "green"]
        return made + [f"{UNVERIFIED}: {said}" for said in self.summary.because]

    def __str__(self) -> str:
        grid = self._grid()
        table = [as_text(grid), ""] if grid.body else []
        return "\n".join([*table, *self.caption, "", self.verdict])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """As a notebook shows it; every text is escaped."""
        grid, e = self._grid(), html.escape
        style = ("text-align:left;padding:2px 10px", "text-align:right;padding:2px 10px")

        def line(cells: list[str], tag: str) -> str:
            return "".join(f'<{tag} style="{style[i >= grid.left]}">{e(c)}</{tag}>' for i, c in enumerate(cells))

        rows = "".join(f"<tr>{line(row, 'td')}</tr>" for row in grid.body)
        table = (
            f"<table><thead><tr>{line(grid.titles, 'th')}</tr></thead><tbody>{rows}</tbody></table>"
            if grid.body
            else ""
        )
        said = "<br>".join(f"<strong>{e(one)}</strong>" for one in self.verdict.splitlines())
        notes = "<br>".join(map(e, self.caption))
        return f"<div><p>{said}</p>{table}<details><summary>how it was measured</summary><small>{notes}</small></details></div>"

    # -- elsewhere ---------------------------------------------------------------------------------------------------

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, a row a number: model, probe, number, value, low and high of its 95 % interval, images, norm, eps, verified.

        Raises `ActkitError` where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ActkitError(
                "to_dataframe needs pandas", help="pip install pandas; `rows()` gives the same as tuples"
            ) from error
        columns = ["model", "probe", "number", "value", "low", "high", "images", "norm", "eps", "verified"]
        return pandas.DataFrame([{c: getattr(row, c) for c in columns} for row in self.rows()], columns=columns)

    def to_json(self) -> dict[str, Any]:
        """As `actkit probe --json` prints it, with the verdict: for json.dumps."""
        return {**self.summary.to_json(), "verdict": self.verdict}


def _cell(row: Row | None) -> str:
    """A number with its interval: '84.00 % (75.6 to 89.9)'."""
    if row is None or row.value is None:
        return "-"
    value = f"{percent(row.value)} %" if row.percent else f"{row.value:.4g}"
    between = "" if row.low is None or row.high is None else f" ({100 * row.low:.1f} to {100 * row.high:.1f})"
    return f"{value}{between}" + (f" {UNVERIFIED}" if row.verified is False else "")
