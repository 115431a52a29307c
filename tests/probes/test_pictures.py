"""Pictures: the numbers beside them are what is drawn; several models' become one."""

from __future__ import annotations

import base64
import io
import json
import xml.etree.ElementTree as xml

import pytest
import torch
from PIL import Image
from torch import nn

from actkit.config.spec import Spec
from actkit.datasets import Data, Split, digits
from actkit.errors import ActkitError, InputError
from actkit.evaluation.results import pictures_of
from actkit.networks.roles import Role
from actkit.probes import Result, adversarial_images, gallery, surface
from actkit.probes.lettering import Lettering
from actkit.probes.pictures import OWN, PALETTE, Picture, averaged, colours, image_uri, merged, of_model
from actkit.probes.triples import COLUMNS, blocks_of, cells_of, triples_of

LINES = Picture(
    "curve",
    "lines",
    "A curve",
    {"series": {OWN: {"x": [1, 2], "y": [0.5, 0.7]}}, "percent": True, "levels": [{"value": 0.1, "text": "chance"}]},
)
BARS = Picture("bars", "bars", "Bars", {"groups": ["a", "b"], "series": {OWN: {"y": [1.0, 2.0]}}})
GRID = Picture(
    "grid",
    "images",
    "Images",
    {"rows": [{"name": OWN, "cells": [{"pixels": [[[0.5], [1.0]]], "text": "3"}, {"pixels": [[[0.1], [0.2]]]}]}]},
)
SLICE = Picture(
    "slice", "surface", "A slice", {"x": [-1, 0, 1], "y": [-1, 0, 1], "z": [[1, 2, 3], [2, 3, 4], [3, 4, 5]]}
)


@pytest.mark.parametrize("picture", [LINES, BARS, GRID, SLICE], ids=lambda p: p.kind)
def test_a_picture_is_saved_as_vector_as_pixels_and_as_numbers(picture, tmp_path):
    files = picture.save(tmp_path / "pictures")
    assert [f.name for f in files] == [f"{picture.name}.{suffix}" for suffix in ("svg", "png", "json")]
    assert xml.parse(files[0]).getroot().tag.endswith("svg")
    assert min(Image.open(files[1]).size) > 100
    assert Picture.from_json(json.loads(files[2].read_text())) == picture
    assert picture.svg().startswith("<svg")


def test_a_saved_picture_is_the_same_again(tmp_path):
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "fixed"}):
        one, two = (LINES.save(tmp_path / name)[0].read_text() for name in "ab")
    assert one == two


def test_pictures_of_several_models_become_one_with_each_under_its_name():
    (lines,) = merged({"act": LINES, "madry": LINES})
    assert list(lines.data["series"]) == ["act", "madry"]
    other = Picture("bars", "bars", "Bars", {"groups": ["b", "c"], "series": {OWN: {"y": [5.0, 6.0]}}})
    (bars,) = merged({"act": BARS, "wide": other})
    assert bars.data["groups"] == ["a", "b", "c"]
    assert {name: s["y"] for name, s in bars.data["series"].items()} == {
        "act": [1.0, 2.0, None],
        "wide": [None, 5.0, 6.0],
    }
    bars.draw()
    (grid,) = merged({"act": GRID, "madry": GRID})
    assert [row["name"] for row in grid.data["rows"]] == ["act", "madry"]
    assert [p.name for p in merged({"act": SLICE, "madry": SLICE})] == ["slice-act", "slice-madry"]
    assert BARS.data["series"] == {OWN: {"y": [1.0, 2.0]}}  # what was handed in is as it was


def test_a_model_has_the_same_colour_in_every_picture_and_no_two_share_one():
    alone = {name: colour for name, colour, _ in colours(["act"])}
    among = {name: colour for name, colour, _ in colours(["natural", "madry", "mine", "act", "yours"])}
    assert alone["act"] == among["act"]
    assert len(set(among.values())) == 5
    assert set(among.values()) <= set(PALETTE)


def linear(weight: float) -> Role:
    layer = nn.Linear(64, 10)
    nn.init.normal_(layer.weight, 0, weight, generator=torch.Generator().manual_seed(0))
    return Role("robust", nn.Sequential(nn.Flatten(), layer))


def test_a_gallery_shows_what_fools_the_model_at_the_distance_that_it_says():
    model, data = linear(0.3), digits()
    found = gallery(model, data, count=3, magnify=5.0)
    (picture,) = found.pictures
    cells = picture.data["rows"][0]["cells"]
    assert len(cells) == 9
    for i, (image, adversarial, noise) in enumerate(zip(cells[::3], cells[1::3], cells[2::3])):
        x, x_adv = (torch.tensor(c["pixels"]).permute(2, 0, 1)[None] for c in (image, adversarial))
        said = data.classes[int(model(x_adv).argmax())]
        distance = float(found.examples["distance"][i])
        assert (x_adv - x).abs().max().item() == pytest.approx(distance, abs=2e-3)  # pixels are kept to 3 digits
        assert noise["text"] == (f"linf {distance:.3g}" if distance else "wrong already")
        assert adversarial["text"].removeprefix("model: ") != image["text"].removeprefix("true: ")
        assert adversarial["text"] == f"model: {said}" or distance < 2e-3
        drawn = torch.tensor(noise["pixels"]).permute(2, 0, 1)
        assert drawn.sub(((x_adv - x)[0] * 5 + 0.5).clamp(0, 1)).abs().max() < 0.02

    assert picture.data["columns"] == ["clean", "adversarial", "difference"]
    assert picture.data["span"] == pytest.approx(0.1)


PGD = Spec("attack", "pgd", {"eps": 0.1, "step_size": 0.05, "steps": 4})


def test_adversarial_images_are_what_the_attack_makes_of_them_and_measure_nothing():
    model, data = linear(0.3), digits()
    found = adversarial_images(model, data, attack=PGD.build(), count=3)
    (picture,) = found.pictures
    assert (found.numbers, found.columns, found.headline) == ({}, (), None)
    for image, adversarial, difference in (t.cells for t in triples_of(picture.data["rows"][0]["cells"])):
        x, x_adv = (torch.tensor(c["pixels"]).permute(2, 0, 1)[None] for c in (image, adversarial))
        assert 0 < (x_adv - x).abs().max() <= 0.1 + 2e-3  # pixels are kept to 3 digits
        assert difference["text"] == "linf 0.1"
        assert adversarial["class"] == data.classes[int(model(x_adv).argmax())]


def test_a_difference_shows_of_each_pixel_the_channel_that_changes_most_with_its_sign():
    x = torch.full((3, 1, 3), 0.5)
    x_adv = x + torch.tensor([[[0.1, 0.0, 0.0]], [[-0.2, 0.0, 0.1]], [[0.1, 0.0, 0.0]]])
    *_, difference = cells_of(x, x_adv, label="a", predicted="b", distance="", span=0.2)
    assert [p[0] for p in difference["pixels"][0]] == pytest.approx([0.0, 0.5, 0.75])


def test_a_differences_colours_are_white_where_nothing_changed_and_blue_and_orange_about_it():
    cell = {"pixels": [[[0.0], [0.5], [1.0]]], "map": "difference"}
    image = Image.open(io.BytesIO(base64.b64decode(image_uri(cell).partition(",")[2]))).convert("RGB")
    darker, same, brighter = (image.getpixel((i, 0)) for i in range(3))
    assert min(same) > 240
    assert darker[2] > darker[0] + 80
    assert brighter[0] > brighter[2] + 80


@pytest.mark.parametrize(
    ("models", "images", "bands"),
    [(1, 4, [[2, 2]]), (1, 3, [[2, 1]]), (1, 1, [[1]]), (2, 4, [[4, 4]]), (4, 2, [[2, 2, 2], [2]])],
    ids=str,
)
def test_triples_of_several_models_stand_beside_each_other_and_those_of_one_in_two_blocks(models, images, bands):
    cell = {"pixels": [[[0.5]]], "text": "t", "class": "a"}
    rows = [{"name": f"m{i}", "cells": [cell, cell, {**cell, "map": "difference"}] * images} for i in range(models)]
    assert [[len(block.triples) for block in band] for band in blocks_of(rows)] == bands
    Picture("g", "images", "G", {"rows": rows, "columns": list(COLUMNS), "span": 0.1}).svg()


def test_a_slice_of_a_linear_models_loss_rises_along_its_gradient():
    found = surface(linear(0.3), digits(), eps=0.05, points=5, limit=8)
    (picture,) = found.pictures
    z = torch.tensor(picture.data["z"])
    assert z.shape == (5, 5)
    assert (z[2, 1:] > z[2, :-1]).all()
    assert found.numbers["at_the_image"] == pytest.approx(float(z[2, 2]))
    assert found.numbers["highest"] == pytest.approx(float(z.max()))


class Jagged(nn.Module):
    """Two classes, the loss of which is a saw along every pixel; each image at another phase."""

    def __init__(self, teeth: float) -> None:
        super().__init__()
        self.teeth = teeth

    def forward(self, x):
        phase = x.flatten(1).sum(1) * self.teeth
        return torch.stack([torch.zeros(len(x)), 5 * torch.asin(torch.sin(phase))], 1)


def test_roughness_tells_a_saw_from_a_line_whatever_the_grid_and_the_number_of_images():
    def rough(model, **how):
        images = torch.rand(16, 1, 2, 2, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
        split = Split(images, torch.zeros(16, dtype=torch.long))
        data = Data("dots", (1, 2, 2), ("a", "b"), {"test": 16}, lambda name: split)
        return surface(Role("robust", model), data, eps=0.1, **how).numbers["roughness"]

    smooth = {points: rough(Jagged(0.01), points=points) for points in (9, 25, 101)}
    assert max(smooth.values()) < 1
    assert rough(Jagged(60.0)) > 20 * max(smooth.values())
    assert rough(Jagged(60.0), limit=16) > 0.5 * rough(
        Jagged(60.0), limit=1
    )  # not smoothed away by the mean over images


def test_a_slice_of_a_model_that_gives_nan_is_refused():
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] * float("nan")

    with pytest.raises(ActkitError, match="not finite"):
        surface(Role("robust", Broken()), digits(), eps=0.05, points=3, limit=4)


def series(*names: str) -> Picture:
    return Picture("p", "lines", "P", {"series": {n: {"x": [1, 2], "y": [0.1, 0.3]} for n in names}})


def test_a_models_own_part_of_a_picture_and_the_mean_over_seeds():
    one, other = of_model(series("robust", "natural"), "natural"), series(OWN)
    other.data["series"][OWN]["y"] = [0.3, 0.3]
    mean = averaged([one, other]).data["series"][OWN]
    assert (mean["x"], mean["y"]) == ([1, 2], pytest.approx([0.2, 0.3]))
    assert mean["high"] == pytest.approx([0.2 + 0.1 * 2**0.5, 0.3])
    assert of_model(series("robust"), "natural") is None
    bars = [Picture("b", "bars", "B", {"groups": ["a"], "series": {OWN: {"y": [y]}}}) for y in (1.0, 3.0)]
    assert averaged(bars).data["series"][OWN] == {"y": [2.0], "error": [pytest.approx(2**0.5)]}
    other.data["series"][OWN]["x"] = [1, 3]
    with pytest.raises(ValueError, match="different points"):
        averaged([one, other])


def test_more_series_than_colours_are_told_apart():
    names = [f"s{i}" for i in range(10)]
    drawn = series(*names).draw().axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == 10


@pytest.mark.parametrize(
    ("probe", "settings", "message"),
    [
        ("gallery", {"count": 0}, "1 to 64 images"),
        ("adversarial_images", {"count": 65, "attack": PGD}, "1 to 64 images"),
        ("gallery", {"magnify": 0.0}, "magnify"),
        ("gallery", {"eps": 0.0}, "above 0"),
        ("surface", {"eps": 0.1, "points": 1}, "3 to 201"),
        ("surface", {"eps": 0.1, "points": 4}, "odd"),
    ],
)
def test_settings_that_show_nothing_are_told(probe, settings, message):
    with pytest.raises(InputError, match=message):
        Spec("probe", probe, settings).build()


def test_what_probes_show_is_written_with_what_made_it(tmp_path, actkit, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    assert actkit("run", quick, "--out", "run", "--device", "cpu").code in (0, 3)
    said = actkit(
        "probe", "--ckpt", "run", "--probe", "norms", "--probe", "pgd20", "--pictures", "shown", "--csv", "n.csv"
    )
    assert said.code == 0, said.err
    assert {p.stem for p in (tmp_path / "shown").glob("*.png")} == {"norms", "pgd20-by-class"}
    norms = json.loads((tmp_path / "shown/norms.json").read_text())
    assert set(norms["data"]["series"]) == {"robust", "natural"}
    assert "--probe norms" in norms["about"]["command"]
    found = json.loads(actkit("probe", "--ckpt", "run", "--probe", "norms", "--json").out)[0]["results"][
        "robust.norms"
    ]["numbers"]
    assert dict(zip(norms["data"]["groups"], norms["data"]["series"]["robust"]["y"])) == {
        k: v for k, v in found.items() if k not in ("total", "mean")
    }
    lines = (tmp_path / "n.csv").read_text().splitlines()
    assert lines[0].startswith("model,probe,number,value")
    assert any(line.startswith("robust,pgd20,worst_run,") for line in lines)
    assert (tmp_path / "run/probes/pgd20-by-class.picture.json").is_file()
    said = actkit("probe", "--ckpt", "run", "--probe", "norms", "--csv", "none/n.csv")
    assert said.code == 2
    assert "the file cannot be written" in said.err


def test_results_without_pictures_show_none():
    assert pictures_of({"robust.accuracy": Result({"clean": 1.0})}, {}) == []


NAMES = ["$5 and $10", "$\\frac$", "a_b^c", "a\nb", "猫", "l" * 200, "m" * 200, "<b>&amp;'\"", "100%{x}", "_hidden", "a\\$b$", "\x01", "é ß я", "[1]"]  # fmt: skip
NAMED = [
    Picture("bars", "bars", "$T$", {"groups": NAMES, "series": {n: {"y": [0.5] * len(NAMES)} for n in NAMES}}),
    Picture("lines", "lines", "猫", {"series": {n: {"x": [1, 10], "y": [0.1, 0.5]} for n in NAMES}, "log": True}),
    Picture("images", "images", "T", {"rows": [{"name": n, "cells": [{"pixels": [[[0.5]]], "text": f"true: {n}"}]} for n in NAMES[:6]]}),
]  # fmt: skip


@pytest.mark.parametrize("picture", NAMED, ids=lambda p: p.kind)
@pytest.mark.filterwarnings("error")
def test_a_name_of_any_text_can_be_drawn_and_nothing_warns(picture, tmp_path):
    svg, png, numbers = picture.save(tmp_path)
    xml.parse(svg)
    xml.fromstring(picture.svg())
    with Image.open(png) as drawn:
        assert min(drawn.size) > 100
    assert Picture.from_json(json.loads(numbers.read_text())) == picture


def texts(picture: Picture) -> set[str]:
    """What stands on a picture as a page shows it."""
    found = xml.fromstring(picture.svg()).iter()
    return {node.text for node in found if node.tag.endswith("text") and node.text}


def test_names_stand_on_a_page_as_they_are():
    shown = texts(NAMED[0])
    for name in ("$5 and $10", "$\\frac$", "a_b^c", "猫", "<b>&amp;'\"", "100%{x}", "a\\$b$", "é ß я", "a\\nb"):
        assert name in shown


def test_what_no_font_has_stands_as_a_number_with_a_legend(monkeypatch):
    from matplotlib.font_manager import fontManager

    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font.name == "DejaVu Sans"])
    lettering = Lettering(["cat", "\U00012000"])
    assert (lettering("cat"), lettering.legend) == ("cat", "")
    assert lettering("\U00012000") == "[1]"
    assert lettering("dog \U00012000") == "[2]"
    assert lettering("\U00012000") == "[1]"
    assert lettering.legend == "[1] \\U00012000\n[2] dog \\U00012000"


def test_a_long_name_keeps_its_beginning_and_its_end():
    lettering = Lettering([])
    assert lettering("a" * 100 + "the end") == "a" * 26 + "…" + "aaaaathe end"
    assert lettering("a" * 40) == "a" * 40
    assert lettering.wrapped("true: a name of more than a line") == "true: a name of more\nthan a line"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", ""])
def test_a_picture_from_a_file_whose_name_leads_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match="a picture cannot be called"):
        Picture.from_json({"name": name, "kind": "lines", "title": "", "data": {}})
