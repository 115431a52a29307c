"""timm's networks: the size of images for those that are made for one, and what is said where weights cannot be had."""

from __future__ import annotations

import pytest
import timm
import torch

from actkit.config.spec import Spec
from actkit.errors import InputError
from actkit.networks.building import build
from actkit.networks.shapes import open_shapes


def backbone(model: str, **kwargs):
    return Spec("backbone", "timm", {"model": model, **kwargs}).build()


def test_a_vit_is_given_the_size_of_the_images():
    net = build(backbone("vit_tiny_patch16_224", options={"depth": 1}), 5, in_chans=3, image_size=(32, 48))
    assert net(torch.rand(1, 3, 32, 48)).shape == (1, 5)


def test_the_size_that_options_name_is_kept():
    options = {"depth": 1, "img_size": 64}
    net = build(backbone("vit_tiny_patch16_224", options=options), 5, in_chans=3, image_size=(32, 32))
    assert net.patch_embed.img_size == (64, 64)


@pytest.mark.parametrize("size", [(8, 8), (40, 40)])
def test_images_that_patches_do_not_cover_are_refused_by_name(size):
    with pytest.raises(
        InputError, match=rf"patches of 16x16, and img_size = {size[0]}x{size[1]} is no multiple"
    ) as caught:
        build(backbone("vit_tiny_patch16_224", options={"depth": 1}), 5, in_chans=3, image_size=size)
    assert "patch_size" in caught.value.help


def test_smaller_patches_make_it_fit():
    net = build(
        backbone("vit_tiny_patch16_224", options={"depth": 1, "patch_size": 4}), 5, in_chans=1, image_size=(8, 8)
    )
    assert net(torch.rand(1, 1, 8, 8)).shape == (1, 5)


def test_a_convolutional_network_is_built_as_before():
    torch.manual_seed(0)
    plain = timm.create_model("resnet10t", num_classes=5, in_chans=1)
    torch.manual_seed(0)
    ours = build(backbone("resnet10t"), 5, in_chans=1, image_size=(8, 8))
    assert all(a.equal(b) for a, b in zip(plain.state_dict().values(), ours.state_dict().values()))


def test_the_sizes_that_data_decide_are_found_by_building_twice():
    shapes = open_shapes(backbone("vit_tiny_patch16_224", options={"depth": 1}))
    assert shapes.of_classes() == {"head.weight": 0, "head.bias": 0}
    assert {name for name, dims in shapes.open.items() for d in dims.values() if d.size == "in_chans"} == {
        "patch_embed.proj.weight"
    }
    assert shapes.open["pos_embed"][1].size == "image_size"


def test_weights_that_cannot_be_fetched_are_told_where_they_can_be_given(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match="pretrained weights of timm's resnet10t cannot be fetched") as caught:
        backbone("resnet10t", pretrained=True)(5, in_chans=3)
    for way in ("HF_HOME", "pretrained_cfg_overlay", "actkit import", "role.weights"):
        assert way in caught.value.help


def test_a_network_without_pretrained_weights_says_so():
    made = backbone("vit_giant_patch14_224", pretrained=True, options={"depth": 1})
    with torch.device("meta"), pytest.raises(InputError, match="timm has no pretrained weights for vit_giant_patch14"):
        made(5, in_chans=3)


def test_an_exported_vit_is_rebuilt_by_timm_for_its_own_size_of_images(tmp_path):
    from actkit.networks import model_files
    from actkit.reports.export import export

    spec = Spec("backbone", "timm", {"model": "vit_tiny_patch16_224", "options": {"depth": 1}})
    about = model_files.Header(
        role="robust",
        roles=("robust",),
        backbone=spec,
        num_classes=10,
        shape=(3, 32, 32),
        data=Spec("dataset", "cifar10"),
        evaluation=(),
        seed=0,
        epoch=1,
        step=1,
    )
    net = build(spec.build(), 10, in_chans=3, image_size=(32, 32)).eval()
    model_files.save_tensors(net.state_dict(), tmp_path / "m.safetensors", about.metadata())
    made = export(tmp_path / "m.safetensors", out=tmp_path / "out", name="vit")
    import actkit.models

    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        theirs = timm.create_model(f"local-dir:{made.folder}", pretrained=True).eval()
        assert torch.allclose(theirs(x), net(x), atol=1e-5)
        named = timm.create_model(actkit.models.register(made.folder), pretrained=True).eval()
        assert torch.allclose(named(x), net(x), atol=1e-5)
