"""Pictures: what is drawn is data first, kept beside each picture as JSON, and drawn by matplotlib in colours that the colour-blind tell apart.

A `Picture` holds everything that is on it. It saves as `<name>.svg`, `<name>.png` and `<name>.json`.
"""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from actkit.probes.comparing import draw_dots, draw_panels, size_of_dots, size_of_panels
from actkit.probes.lettering import Lettering
from actkit.probes.triples import DIVERGING, Block, blocks_of

Kind = Literal["lines", "bars", "images", "surface", "dots", "panels"]

# What a probe calls the series, or the row, of the model that it looks at.
OWN = ""

# Okabe and Ito 2008, yellow left out (too light on white); a model keeps its colour in all pictures.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Places in the palette.
_FIXED_COLOURS = {
    "natural": 6,
    "madry": 1,
    "trades": 2,
    "act": 0,
    "act.natural": 4,
    "act, natural model": 4,
    "robust": 0,
}

# In an SVG: the ids that matplotlib gives to groups, the same in every drawing, and its black.
_GROUP_IDS = re.compile(r' id="[\w.]+_\d+"')
_BLACK = re.compile(r"#000000\b")


@dataclass(frozen=True)
class Picture:
    """A picture before it is drawn.

    Args:
        name: of its files. title, caption: above and below it.
        kind: 'lines', 'bars', 'dots', 'panels', 'images' or 'surface'.
        data: everything that is on it, see below.
        about: which command, commit, machine and data made it.

    `data` of 'lines': `series` {name: {x, y, [low, high], [marks: [{x, y, text}]], [dashed], [as: whose colour]}}; of 'bars': `groups` (names on the axis) and `series`
    {name: {y, [error]}}; of 'dots' the same, each group on lines of its own, with `values` (the single ones) and `doubted`; of 'panels': `panels`
    [{title, series}], the series as of 'lines'; of 'images': `rows` [{name, cells: [{pixels (H, W, C) in [0,1], text}]}], with `columns` and `span`
    where the cells are triples (`actkit.probes.triples`); of 'surface': `x`, `y`, `z`.
    All may have `x_label`, `y_label`, `levels` [{value, text}] (horizontal lines), `percent` (of the y axis), `log`.
    """

    name: str
    kind: Kind
    title: str
    data: dict[str, Any]
    caption: str = ""
    # Which command, commit, machine and data made it.
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "title": self.title,
            "caption": self.caption,
            "about": self.about,
            "data": self.data,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Picture:
        """Raises `ValueError` for a name that could lead a file elsewhere: such files come from other people's runs."""
        if not re.fullmatch(r"[\w.>@#= -]+", str(data["name"])) or ".." in data["name"]:
            raise ValueError(f"a picture cannot be called {data['name']!r}")
        return Picture(
            data["name"], data["kind"], data["title"], data["data"], data.get("caption", ""), data.get("about", {})
        )

    def lettering(self, *, page: bool = False) -> Lettering:
        """How its texts are drawn: in a file, or in a page whose reader has fonts."""
        return Lettering(_texts([self.title, self.data]), page=page)

    def draw(self, *, titled: bool = True, scale: float = 1.0, letter: Lettering | None = None) -> Any:
        """As a matplotlib Figure; `scale` of the figure, not of the text on it. To be drawn and saved within the lettering's `drawing()`."""
        letter = letter or self.lettering()
        with letter.drawing():
            figure = self._figure(scale, letter)
            if titled:
                figure.suptitle(letter.whole(self.title), fontsize=11)
            if letter.legend:
                figure.supxlabel(letter.legend, fontsize=7)
        return figure

    def _figure(self, scale: float, letter: Lettering) -> Any:
        from matplotlib.figure import Figure

        if self.kind == "images":
            figure = Figure(figsize=_size_of_images(self.data), layout="constrained")
            _images(figure, self.data, letter)
        elif self.kind == "dots":
            width, height = size_of_dots(self.data)
            figure = Figure(figsize=(scale * width, scale * height), layout="constrained")
            axes = figure.subplots()
            draw_dots(axes, self.data, letter, list(colours(list(self.data["series"]))))
            axes.set_xlabel(letter.whole(self.data.get("x_label", "")))
        elif self.kind == "panels":
            width, height = size_of_panels(self.data)
            figure = Figure(figsize=(scale * width, scale * height), layout="constrained")
            shown = dict.fromkeys(one["as"] for panel in self.data["panels"] for one in panel["series"].values())
            style = {**self.data, "series": {}}
            draw_panels(figure, self.data, letter, list(colours(list(shown))), lambda a: _style_axes(a, style, letter))
        else:
            width, height = {
                "lines": (6.0, 4.0),
                "bars": (max(6.0, 0.32 * len(self.data.get("groups", ()))), 4.0),
                "surface": (5.5, 4.5),
            }[self.kind]
            figure = Figure(figsize=(scale * width, scale * height), layout="constrained")
            axes = figure.subplots()
            {"lines": _lines, "bars": _bars, "surface": _surface}[self.kind](axes, self.data, letter)
            axes.set_xlabel(letter.whole(self.data.get("x_label", "")))
            axes.set_ylabel(letter.whole(self.data.get("y_label", "")))
        return figure

    def save(self, folder: Path) -> list[Path]:
        """Write the picture as SVG and PNG and its numbers as JSON; the files written."""
        folder.mkdir(parents=True, exist_ok=True)
        letter = self.lettering()
        figure = self.draw(letter=letter)
        written = []
        for suffix in ("svg", "png"):
            path = folder / f"{self.name}.{suffix}"
            with letter.drawing(_svg_settings()):
                figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
            written.append(path)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        return [*written, path]

    def svg(self) -> str:
        """The drawing as an SVG element without its title, to stand in a page: black is the page's own colour, text is text."""
        import io

        buffer = io.StringIO()
        # The salt is the picture's own, so that the ids of several in one page differ.
        letter = self.lettering(page=True)
        with letter.drawing(_svg_settings(f"{self.name} {json.dumps(self.data)}")):
            self.draw(titled=False, scale=0.85, letter=letter).savefig(
                buffer, format="svg", transparent=True, metadata={"Date": None}
            )
        text = buffer.getvalue()
        text = _BLACK.sub("currentColor", _GROUP_IDS.sub("", text[text.index("<svg") :]))
        return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(self.title)}" ', 1)


def _size_of_images(data: Mapping[str, Any]) -> tuple[float, float]:
    """In inches."""
    rows = data["rows"]
    if "columns" not in data:
        return 1.15 * max(len(row["cells"]) for row in rows) + 1.0, 1.45 * len(rows) + 0.6
    bands = blocks_of(rows)
    return max(3.8 * max(map(len, bands)), 4.0), sum(1.36 * _lines_of(band) + 0.55 for band in bands) + 0.85


def _texts(value: Any) -> Iterator[str]:
    """Every text in a picture's data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        # Of cells the text alone: their pixels are many.
        inner = [value.get("text", "")] if "pixels" in value else [*value, *value.values()]
        for item in inner:
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _svg_settings(salt: str = "") -> dict[str, object]:
    """matplotlib's settings with which the same picture gives the same file. In a page (with a salt) text stays text."""
    return {"svg.hashsalt": salt or "actkit", "svg.fonttype": "none" if salt else "path"}


def merged(pictures: Mapping[str, Picture]) -> list[Picture]:
    """The pictures that a probe made of several models, as one where they have the same axes: each model's series, or row, under its name."""
    first = next(iter(pictures.values()))
    if first.kind == "surface":
        return [
            dataclasses.replace(p, name=f"{p.name}-{model}", title=f"{p.title}: {model}")
            for model, p in pictures.items()
        ]
    data = {key: value for key, value in first.data.items() if key not in ("series", "rows", "groups")}
    if first.kind == "images":
        data["rows"] = [
            {**row, "name": model if row["name"] == OWN else row["name"]}
            for model, p in pictures.items()
            for row in p.data["rows"]
        ]
        return [dataclasses.replace(first, data=data)]
    if first.kind == "bars":
        data["groups"] = list(dict.fromkeys(group for p in pictures.values() for group in p.data["groups"]))
    data["series"] = {
        model if name == OWN else f"{model} {name}": _aligned(series, p.data["groups"], data["groups"])
        if first.kind == "bars"
        else series
        for model, p in pictures.items()
        for name, series in p.data["series"].items()
    }
    return [dataclasses.replace(first, data=data)]


def _aligned(series: Mapping[str, Any], own: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """A series of bars over its own groups as one over all of them, None where it has no bar."""
    aligned = dict(series)
    for key in {"y", "error"} & series.keys():
        values = dict(zip(own, series[key], strict=True))
        aligned[key] = [values.get(group) for group in groups]
    return aligned


def of_model(picture: Picture, model: str) -> Picture | None:
    """A picture of several models, or of one, as the probe made it of this model alone; None where the model is not on it."""
    if picture.kind == "surface":
        return picture
    if picture.kind == "images":
        rows = [{**row, "name": OWN} for row in picture.data["rows"] if row["name"] == model]
        return dataclasses.replace(picture, data={**picture.data, "rows": rows}) if rows else None
    series = picture.data["series"].get(model)
    return None if series is None else dataclasses.replace(picture, data={**picture.data, "series": {OWN: series}})


def averaged(pictures: Sequence[Picture]) -> Picture:
    """One model's picture over several seeds: the mean, with the deviation of the sample as a band or a bar; of images and slices, the first seed's.

    Raises `ValueError` where the seeds' pictures do not have the same points.
    """
    first = pictures[0]
    if len(pictures) == 1 or first.kind in ("images", "surface"):
        return first
    series = [picture.data["series"][OWN] for picture in pictures]
    if any(
        one.get("x") != series[0].get("x") or other.data.get("groups") != first.data.get("groups")
        for one, other in zip(series, pictures, strict=True)
    ):
        raise ValueError(f"the pictures {first.name!r} of several seeds have different points")
    points = list(zip(*(one["y"] for one in series), strict=True))
    mean = [statistics.fmean(point) for point in points]
    spread = [statistics.stdev(point) for point in points]
    made = {**series[0], "y": mean}
    if first.kind == "bars":
        made["error"] = spread
    else:
        made["low"] = [m - s for m, s in zip(mean, spread, strict=True)]
        made["high"] = [m + s for m, s in zip(mean, spread, strict=True)]
    return dataclasses.replace(first, data={**first.data, "series": {OWN: made}})


def colours(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(name, colour, mark) of each series: the known ones always the same."""
    known = {name: _FIXED_COLOURS[name.lower()] for name in names if name.lower() in _FIXED_COLOURS}
    free = [i for i in range(len(PALETTE)) if i not in known.values()]
    for name in names:
        # More than there are colours: again from the first, drawn otherwise.
        if not free:
            free = list(range(len(PALETTE)))
        i = known[name] if name in known else free.pop(0)
        yield name, PALETTE[i], _MARKERS[i]


def _levels(axes: Any, data: Mapping[str, Any], letter: Lettering) -> None:
    for level in data.get("levels", ()):
        axes.axhline(level["value"], color="0.5", linewidth=1, linestyle=":")
        axes.annotate(
            letter(level["text"]),
            (1, level["value"]),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color="0.5",
            fontsize=8,
        )


def _style_axes(axes: Any, data: Mapping[str, Any], letter: Lettering) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    _levels(axes, data, letter)
    if data.get("percent"):
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], min_n_ticks=3))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set_ylim(bottom=0)
    if data.get("x_label") == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if data.get("log"):
        axes.set_xscale("log")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    # Above the bars, which leave no room.
    if len(data["series"]) > 3 and "groups" in data:
        axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    elif len(data["series"]) > 1:
        axes.legend(frameon=False, fontsize=8)


def _lines(axes: Any, data: Mapping[str, Any], letter: Lettering) -> None:
    series = data["series"]
    shades = {
        name: (colour, mark)
        for name, colour, mark in colours(list(dict.fromkeys(one.get("as", n) for n, one in series.items())))
    }
    for name, one in series.items():
        colour, mark = shades[one.get("as", name)]
        few = len(one["x"]) <= 30
        reused = list(shades).index(one.get("as", name)) >= len(PALETTE)
        axes.plot(
            one["x"],
            one["y"],
            color=colour,
            marker=mark if few else None,
            markersize=4,
            linewidth=1.6,
            label=letter(name),
            linestyle="--" if one.get("dashed") else ":" if reused else "-",
        )
        # Of more than three, bands would hide each other.
        if "low" in one and len(series) > 3:
            below = [y - low for y, low in zip(one["y"], one["low"], strict=True)]
            above = [high - y for y, high in zip(one["y"], one["high"], strict=True)]
            axes.errorbar(one["x"], one["y"], yerr=[below, above], fmt="none", ecolor=colour, elinewidth=1, capsize=2)
        elif "low" in one:
            axes.fill_between(one["x"], one["low"], one["high"], color=colour, alpha=0.15, linewidth=0)
        for point in one.get("marks", ()):
            axes.plot([point["x"]], [point["y"]], color=colour, marker="*", markersize=11, markeredgecolor="white")
            axes.annotate(
                letter(point["text"]), (point["x"], point["y"]), xytext=(3, 6), textcoords="offset points", fontsize=8
            )
    _style_axes(axes, data, letter)


def _bars(axes: Any, data: Mapping[str, Any], letter: Lettering) -> None:
    groups, series = data["groups"], data["series"]
    width = 0.8 / max(len(series), 1)
    for i, (name, colour, _) in enumerate(colours(list(series))):
        places = [g + (i - (len(series) - 1) / 2) * width for g in range(len(groups))]
        heights = [math.nan if y is None else y for y in series[name]["y"]]
        errors = series[name].get("error")
        bars = None if errors is None else [0.0 if e is None else e for e in errors]
        axes.bar(places, heights, width, color=colour, label=letter(name), yerr=bars, capsize=2)
    # 60 characters fit beside each other.
    shown = [letter.wrapped(group, 20) for group in groups]
    long = sum(len(g) + 2 for g in shown) > 60
    axes.set_xticks(range(len(groups)), shown, rotation=90 if long else 0, fontsize=7 if long else 9)
    _style_axes(axes, data, letter)


def _images(figure: Any, data: Mapping[str, Any], letter: Lettering) -> None:
    """Images in rows; triples of them (`columns` says what is what) in blocks, with a bar for the colours of the difference."""
    if "columns" in data:
        _triples(figure, data, letter)
        return
    rows = data["rows"]
    columns = max(len(row["cells"]) for row in rows)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, line in zip(rows, grid, strict=True):
        for axes in line:
            axes.axis("off")
        for cell, axes in zip(row["cells"], line, strict=False):
            _image(axes, cell, letter)
        _beside(line[0], row["name"], letter)


def _triples(figure: Any, data: Mapping[str, Any], letter: Lettering) -> None:
    """Blocks of triples beside each other, in bands; above each block its model and what each column is, below all the colours of the difference."""
    bands = blocks_of(data["rows"])
    parts = figure.subfigures(len(bands), 1, squeeze=False, height_ratios=[_lines_of(band) for band in bands])[:, 0]
    drawn = None
    for part, band in zip(parts, bands, strict=True):
        # Between two blocks a column that stays empty.
        widths = [1.0, 1.0, 1.0, 0.25] * len(band)
        places = part.add_gridspec(_lines_of(band), len(widths) - 1, width_ratios=widths[:-1])
        for b, block in enumerate(band):
            for line, triple in enumerate(block.triples):
                for c, cell in enumerate(triple.cells):
                    axes = part.add_subplot(places[line, 4 * b + c])
                    axes.axis("off")
                    drawn = _image(axes, cell, letter, width=20)
                    if not line:
                        _head(axes, data["columns"][c], "" if c else block.name, band, letter)
    span, last = data["span"], [axes for part in parts[-1:] for axes in part.axes]
    bar = parts[-1].colorbar(drawn, ax=last, location="bottom", shrink=0.35, aspect=30, pad=0.02, ticks=[0, 0.5, 1])
    bar.ax.set_xticklabels([f"{-span:.3g}\ndarker", "0", f"+{span:.3g}\nbrighter"], fontsize=7)
    bar.outline.set_linewidth(0.4)


def _head(axes: Any, column: str, model: str, band: Sequence[Block], letter: Lettering) -> None:
    """What a column is, and at the first of a block whose it is: above the texts of the first line, however many lines they have."""
    texts = [cell.get("text", "") for block in band for cell in block.triples[0].cells]
    above = 12 + 8 * max(letter.wrapped(text, 20).count("\n") + 1 for text in texts)
    axes.annotate(letter(column), (0.5, 1), (0, above), "axes fraction", "offset points", ha="center", fontsize=8, color="0.4")  # fmt: skip
    if model:
        axes.annotate(letter(model), (0, 1), (0, above + 14), "axes fraction", "offset points", fontsize=9, weight="bold")  # fmt: skip


def _lines_of(band: Sequence[Block]) -> int:
    return max(len(block.triples) for block in band)


def _image(axes: Any, cell: Mapping[str, Any], letter: Lettering, *, width: int = 24) -> Any:
    """One image under its text, which is wrapped at `width` characters."""
    pixels, colours_of = cell["pixels"], _colour_map(cell)
    values = pixels if colours_of is None else [[p[0] for p in r] for r in pixels]
    drawn = axes.imshow(values, cmap=colours_of, vmin=0, vmax=1)
    axes.set_title(letter.wrapped(cell.get("text", ""), width), fontsize=7)
    return drawn


def _colour_map(cell: Mapping[str, Any]) -> Any:
    """How values become colours: a difference around white, a single channel as grey; None for pixels that have colours."""
    if cell.get("map") == "difference":
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list("difference", DIVERGING)
    return "gray" if len(cell["pixels"][0][0]) == 1 else None


def _beside(axes: Any, name: str, letter: Lettering) -> None:
    axes.annotate(
        letter(name), (-0.15, 0.5), xycoords="axes fraction", rotation=90, ha="right", va="center", fontsize=9
    )


def image_uri(cell: Mapping[str, Any]) -> str:
    """An image of a picture as a 'data:' address, for a page."""
    import base64
    import io

    import numpy as np
    from matplotlib.image import imsave

    values, buffer = np.asarray(cell["pixels"], dtype=float), io.BytesIO()
    colours_of = _colour_map(cell)
    imsave(buffer, values if colours_of is None else values[..., 0], cmap=colours_of, vmin=0, vmax=1, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _surface(axes: Any, data: Mapping[str, Any], letter: Lettering) -> None:
    drawn = axes.contourf(data["x"], data["y"], data["z"], levels=24, cmap="cividis")
    axes.plot([0], [0], marker="+", color="white", markersize=9)
    axes.figure.colorbar(drawn, ax=axes, label=letter(data.get("z_label", "loss")))
