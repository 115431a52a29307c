"""How pictures that compare are drawn: methods beside each other with their spread, and many small pictures with the same axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actkit.probes.lettering import Lettering

# (name, colour, mark) of each series, as pictures choose them.
Shades = Sequence[tuple[str, str, str]]


def size_of_dots(data: Mapping[str, Any]) -> tuple[float, float]:
    """In inches: a line for each group and series."""
    return 4.7, 1.1 + 0.18 * len(data["series"]) + len(data["groups"]) * (0.25 + 0.27 * len(data["series"]))


def draw_dots(axes: Any, data: Mapping[str, Any], letter: Lettering, shades: Shades) -> None:
    """A line for each group and series: the single values pale, their mean with the deviation, and both in figures; hollow where it is doubted."""
    groups, scale = data["groups"], 100 if data.get("percent") else 1
    step = 0.27 / (0.25 + 0.27 * len(shades))
    for i, (name, colour, mark) in enumerate(shades):
        one = data["series"][name]
        for g, mean in enumerate(one["y"]):
            if mean is None:
                continue
            place = g + (i - (len(shades) - 1) / 2) * step
            error, doubted = one["error"][g] or 0.0, one["doubted"][g]
            axes.plot(
                [scale * v for v in one["values"][g]], [place] * len(one["values"][g]), ".", color=colour, alpha=0.35
            )
            axes.errorbar(
                [scale * mean],
                [place],
                xerr=[scale * error],
                fmt=mark,
                color=colour,
                markerfacecolor="none" if doubted else colour,
                capsize=3,
                label=None if g else letter(name),
            )
            said = f"{scale * mean:.1f}" + (f" ± {scale * error:.1f}" if one["error"][g] is not None else "")
            _beside(axes, place, said, colour, size=8 if not doubted else 7)
            if doubted:
                _beside(axes, place + 0.4 * step, "UNVERIFIED", colour, size=5)
    axes.set_yticks(range(len(groups)), [letter.wrapped(group, 16) for group in groups], fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    for g in range(1, len(groups)):
        axes.axhline(g - 0.5, color="0.5", linewidth=0.4, alpha=0.5)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles, names = axes.get_legend_handles_labels()
    axes.figure.legend(handles, names, loc="outside lower left", ncols=1, frameon=False, fontsize=8)


def _beside(axes: Any, place: float, text: str, colour: str, *, size: float) -> None:
    """Text on the right of the axes."""
    where = {"xycoords": ("axes fraction", "data"), "va": "center"}
    axes.annotate(text, (1.02, place), fontsize=size, color=colour, **where)


def size_of_panels(data: Mapping[str, Any]) -> tuple[float, float]:
    """In inches: two panels in a line."""
    return 4.7, 1.1 + 1.8 * math.ceil(len(data["panels"]) / 2)


def draw_panels(
    figure: Any, data: Mapping[str, Any], letter: Lettering, shades: Shades, style: Callable[[Any], None]
) -> None:
    """Small pictures of lines, two in a line, all with the same axes; a line's colour is that of what it shows (`as`), the same in all."""
    panels, colours = data["panels"], {name: colour for name, colour, _ in shades}
    rows = math.ceil(len(panels) / 2)
    grid = figure.subplots(rows, 2 if len(panels) > 1 else 1, sharex=True, sharey=True, squeeze=False)
    places = list(grid.flat)
    named: dict[str, Any] = {}
    for axes, panel in zip(places, panels, strict=False):
        for one in panel["series"].values():
            (line,) = axes.plot(
                one["x"],
                one["y"],
                color=colours[one["as"]],
                linestyle="--" if one.get("dashed") else "-",
                linewidth=1.3,
                alpha=0.85,
                marker="." if len(one["x"]) < 3 else None,
            )
            named.setdefault(one["as"], line)
        axes.set_title(letter.wrapped(panel["title"], 26), fontsize=9)
        axes.tick_params(labelsize=8)
        style(axes)
    # The axes are shared: what one panel was given must hold what the others show.
    highest = max(
        (y for panel in panels for one in panel["series"].values() for y in one["y"] if y is not None), default=None
    )
    if highest is not None and highest > 0:
        places[0].set_ylim(0, 1.08 * highest)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
        # The panel above it has the axis's numbers then.
        places[places.index(axes) - 2].tick_params(labelbottom=True)
    # The lowest of each column; the legend goes below.
    for axes in places[: len(panels)][-2:]:
        axes.set_xlabel(letter.whole(data.get("x_label", "")), fontsize=9)
    figure.supylabel(letter.whole(data.get("y_label", "")), fontsize=9)
    figure.legend(
        list(named.values()),
        [letter(name) for name in named],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
