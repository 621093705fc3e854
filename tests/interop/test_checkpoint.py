"""Loading: the right weights from every kind of folder, and one sentence for everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from openjepa.interop import Model, load
from tests.interop.interop_toys import PREPROCESS, checkpoint, config, network, seal

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def same(model: Model, encoder: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(model.encode(X).tokens, encoder(X))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two checkpoints, the newer with a teacher."""
    folder = tmp_path / "run"
    checkpoint(folder / "checkpoints/step_10", {"encoder": network(seed=1)})
    checkpoint(folder / "checkpoints/step_20", {"encoder": network(seed=2), "teacher": network(seed=3)})
    (folder / "checkpoints/last").symlink_to("step_20", target_is_directory=True)
    return folder


def test_auto_takes_the_teacher_where_there_is_one(run: Path):
    assert same(load(run), network(seed=3)) and load(run).weights == "teacher"
    assert same(load(run, weights="encoder"), network(seed=2))
    assert same(load(run / "checkpoints/step_10"), network(seed=1))
    assert same(load(run / "checkpoints"), network(seed=3))
    with pytest.raises(ValueError, match=r"must hold teacher\.safetensors, got \['encoder\.safetensors'\]"):
        load(run / "checkpoints/step_10", weights="teacher")


def test_last_may_be_a_text_file_or_gone(run: Path):
    last = run / "checkpoints/last"
    last.unlink()
    last.write_text("step_10\n")
    assert same(load(run), network(seed=1))
    last.unlink()
    assert same(load(run), network(seed=3))


def test_a_weights_file_means_its_folder(run: Path):
    assert same(load(run / "checkpoints/step_20/encoder.safetensors"), network(seed=2))


def test_loading_changes_no_global_random_state_and_evaluates(run: Path):
    before = torch.get_rng_state()
    model = load(run)
    assert torch.equal(before, torch.get_rng_state())
    assert not model.encoder.training


def test_half_precision_files_become_float32(run: Path):
    folder = run / "checkpoints/step_10"
    state = {k: v.half() for k, v in load_file(folder / "encoder.safetensors").items()}
    save_file(state, folder / "encoder.safetensors")
    seal(folder)
    model = load(folder)
    assert {p.dtype for p in model.encoder.parameters()} == {torch.float32}
    torch.testing.assert_close(model.encode(X).tokens, network(seed=1)(X).detach(), atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", ["vit_micro/4", "resnet18", "convnet_tiny", "convnext_atto"])
def test_every_family(tmp_path: Path, name: str):
    encoder = network(name)
    if name == "resnet18":
        encoder.train()(X)  # running statistics of its own
        encoder.eval()
    model = load(checkpoint(tmp_path / "c", {"encoder": encoder}, config(name)))
    assert same(model, encoder)


def test_an_encoder_of_the_users_own_is_given(tmp_path: Path):
    from openjepa.nn import wrap

    def make() -> nn.Module:
        return nn.Conv2d(3, 8, 4, stride=4)

    mine = wrap(make(), size=16)
    folder = checkpoint(tmp_path / "c", {"encoder": mine}, config(encoder=None))
    with pytest.raises(ValueError, match=r"encoder=\.\.\."):
        load(folder)
    assert same(load(folder, encoder=make()), mine)


def broken(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    save_file(state, folder / "encoder.safetensors")
    seal(folder)
    return folder


def test_strict_about_every_tensor(tmp_path: Path):
    folder = checkpoint(tmp_path / "c", {"encoder": network()})
    state = load_file(folder / "encoder.safetensors")
    fewer = {k: v for k, v in state.items() if k != "norm.weight"}
    with pytest.raises(ValueError, match=r"missing: norm\.weight\. "):
        load(broken(folder, fewer))
    with pytest.raises(ValueError, match="unexpected: head"):
        load(broken(folder, state | {"head": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"other shape: norm\.bias \(3,\) for \(96,\)"):
        load(broken(folder, state | {"norm.bias": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"other type: norm\.bias torch\.int64"):
        load(broken(folder, state | {"norm.bias": torch.zeros(96, dtype=torch.int64)}))
    with pytest.raises(ValueError, match=r"nan or inf in norm\.bias"):
        load(broken(folder, state | {"norm.bias": torch.full((96,), float("nan"))}))
    with pytest.raises(ValueError, match=r"missing: .* and [0-9]+ more; unexpected"):
        load(broken(folder, {f"module.{k}": v for k, v in state.items()}))


def one_line(error: pytest.ExceptionInfo[ValueError]) -> bool:
    return "\n" not in str(error.value)


def test_damaged_weights(tmp_path: Path):
    folder = checkpoint(tmp_path / "c", {"encoder": network()})
    file = folder / "encoder.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"bytes, got .* damaged") as e:
        load(folder)
    assert one_line(e)
    file.write_bytes(whole[:-4] + b"abcd")
    with pytest.raises(ValueError, match="other content"):
        load(folder)
    (folder / "files.json").unlink()  # copied by hand, without the list
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"whole \.safetensors file, got damage") as e:
        load(folder)
    assert one_line(e)


FOREIGN = {
    "empty": (b"", "empty file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "git lfs pull"),
    "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"0" * 99, "HDF5"),
    "npy": (b"\x93NUMPY\x01\x00" + b"0" * 99, "NumPy"),
    "json": (b'{"a": 1}', "a JSON file"),
    "noise": (bytes(range(200)), "something unknown"),
    "cut zip": (b"PK\x03\x04" + b"0" * 99, "damage"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_told_by_their_content(tmp_path: Path, kind: str):
    content, says = FOREIGN[kind]
    folder = checkpoint(tmp_path / "c", {"encoder": network()})
    (folder / "files.json").unlink()
    (folder / "encoder.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=says) as e:
        load(folder)
    assert one_line(e)
    alone = tmp_path / "weights.bin"
    alone.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        load(alone)


def test_pickles_with_code_are_refused_and_not_run(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for name, old in (("new.pt", False), ("old.pt", True)):
        torch.save({"w": Evil()}, tmp_path / name, _use_new_zipfile_serialization=not old)
        with pytest.raises(ValueError, match=r"run code.*safetensors") as e:
            load(tmp_path / name)
        assert one_line(e)
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    with pytest.raises(ValueError, match="run code"):
        load(tmp_path / "module.pt")
    assert not (tmp_path / "ran").exists()


def test_plain_torch_files_hold_weights_too(tmp_path: Path):
    folder = checkpoint(tmp_path / "c", {"encoder": network(seed=5)})
    torch.save(network(seed=6).state_dict(), folder / "averaged.pt")
    (folder / "files.json").unlink()
    assert same(load(folder / "averaged.pt"), network(seed=6))
    torch.save(network(seed=6).state_dict(), tmp_path / "alone.pt")
    with pytest.raises(ValueError, match=r"heads of the encoder .* must be given for width 96"):
        load(tmp_path / "alone.pt")
    assert same(load(tmp_path / "alone.pt", heads=3), network(seed=6))  # the names are those of I-JEPA


def test_settings_that_are_wrong(tmp_path: Path):
    folder = checkpoint(tmp_path / "c", {"encoder": network()})

    def with_config(text: str) -> Path:
        (folder / "config.json").write_text(text)
        seal(folder)
        return folder

    for text, says in [
        ("{not json", "must be JSON, got a damaged file"),
        ("[1]", "named settings, got list"),
        ("{}", "no format in config.json"),
        (json.dumps(config(format="openjepa/9")), "Update openjepa"),
        (json.dumps({"model_type": "bert"}), "'bert' model of transformers"),
        (json.dumps(config(encoder={"name": "vit_tinny"})), "Did you mean 'vit_tiny'"),
        (json.dumps(config(encoder={"name": "vit_micro/4", "colour": 1})), "unknown key 'colour'"),
        (json.dumps(config(preprocess={"mean": [0]})), "how pictures were prepared"),
        (json.dumps(config(preprocess=PREPROCESS | {"mean": [0.5]})), "a mean and a std for each of 3 channels"),
        (json.dumps(config("vit_micro/8")), "other shape"),
    ]:
        with pytest.raises(ValueError, match=says) as e:
            load(with_config(text))
        assert one_line(e)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"neither checkpoints nor a config\.json"):
        load(folder)
    with pytest.raises(ValueError, match="not there"):
        load(tmp_path / "nowhere")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="must hold a checkpoint, got none"):
        load(tmp_path / "run")


def test_encode_takes_pictures_of_every_kind(tmp_path: Path):
    model = load(checkpoint(tmp_path / "c", {"encoder": network()}))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    file = tmp_path / "a.png"
    image.save(file)
    want = model.encode(model.preprocess(image)[None])
    assert want.tokens.shape == (1, 16, 96) and torch.allclose(want.pooled, want.tokens.mean(1))
    uint8 = torch.from_numpy(pixels).permute(2, 0, 1)
    for same_picture in (image, file, str(file), [image], [file], uint8, uint8[None], [str(file)]):
        torch.testing.assert_close(model.encode(same_picture).tokens, want.tokens)
    many = model.encode([file] * 5, batch_size=2)
    torch.testing.assert_close(many.pooled, want.pooled.expand(5, -1))
    assert model.encode(image, pooling="mean+max").pooled.shape == (1, 192)
    with pytest.raises(ValueError, match="at least one"):
        model.encode([])
    with pytest.raises(ValueError, match="must be a picture"):
        model.encode(tmp_path / "c/config.json")
    with pytest.raises(ValueError, match="must exist"):
        model.encode(tmp_path / "no.png")
    with pytest.raises(ValueError, match=r"uint8 in 0\.\.255 or normalised"):
        model.encode(torch.zeros(1, 3, 16, 16, dtype=torch.int64))
