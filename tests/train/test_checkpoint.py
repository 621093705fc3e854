"""Checkpoints are whole or absent, and nothing is loaded that does not fit."""

import json
import shutil

import pytest
import torch
from torch import nn

from openjepa.train import checkpoint
from openjepa.train.weights import join, load_initial, load_strict, split
from tests.train.toys import Toy, ToyConfig, toy


def save(folder, step, method, **training):
    parts = split(method, method.state_dict())
    return checkpoint.write(folder, step, parts, {"step": step}, {"step": step, **training})


def test_one_file_per_child_and_everything_comes_back(tmp_path):
    a, b = toy(seed=1), toy(seed=2)
    path = save(tmp_path, 3, a, tensors=[torch.arange(3)], nested={"x": (1, 2.5, None, "s")})
    names = {"encoder", "predictor", "teacher", "method"}
    assert {p.stem for p in path.glob("*.safetensors")} == names
    assert "hidden" in checkpoint.read_parts(path)["method"] and "updates" in checkpoint.read_parts(path)["method"]
    load_strict(b, join(checkpoint.read_parts(path)), "test")
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    state = checkpoint.read_training(path)
    assert state["nested"] == {"x": (1, 2.5, None, "s")} and torch.equal(state["tensors"][0], torch.arange(3))
    assert checkpoint.damage(path) is None


def test_last_follows_and_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 100):
        save(tmp_path, step, toy())
        checkpoint.prune(tmp_path, 2)
    assert [p.name for p in checkpoint.listed(tmp_path)] == ["step_10", "step_100"]  # by number, not by letter
    assert (tmp_path / "last").resolve() == (tmp_path / "step_100").resolve()
    assert not list(tmp_path.glob(".*"))


def test_where_links_are_not_to_be_had_last_is_a_text_file(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    save(tmp_path, 1, toy())
    save(tmp_path, 2, toy())
    assert (tmp_path / "last").read_text() == "step_2\n"


@pytest.mark.parametrize("harm", ["cut", "flip", "missing", "no_list", "broken_list"])
def test_a_damaged_newest_one_is_set_aside_with_a_warning(tmp_path, harm):
    save(tmp_path, 1, toy())
    path = save(tmp_path, 2, toy())
    file = path / "encoder.safetensors"
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "missing":
        file.unlink()
    elif harm == "no_list":
        (path / "files.json").unlink()
    else:
        (path / "files.json").write_text("{")
    with pytest.warns(UserWarning, match="step_2 is damaged"):
        found = checkpoint.newest_good(tmp_path)
    assert found == tmp_path / "step_1"
    assert (tmp_path / "last").resolve() == found.resolve()
    assert (tmp_path / "step_2.damaged").is_dir() and checkpoint.listed(tmp_path) == [found]


def test_saving_over_the_same_step_replaces_it(tmp_path):
    save(tmp_path, 4, toy(seed=0))
    path = save(tmp_path, 4, toy(seed=9))
    assert torch.equal(checkpoint.read_parts(path)["encoder"]["inlet.weight"], toy(seed=9).encoder.inlet.weight)
    assert checkpoint.damage(path) is None


def test_what_a_kill_leaves_behind_is_put_right(tmp_path):
    good = save(tmp_path, 4, toy())
    shutil.copytree(good, tmp_path / ".step_5.draft")  # killed while writing
    good.rename(tmp_path / ".step_4.old")  # killed between making room and putting the new one
    checkpoint.clean(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"step_4", "last"}


def test_tied_weights_are_written_and_read(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
            self.encoder[1].weight = self.encoder[0].weight

    path = save(tmp_path, 1, Tied())
    fresh = Tied()
    load_strict(fresh, join(checkpoint.read_parts(path)), "test")
    assert fresh.encoder[0].weight is fresh.encoder[1].weight


def test_strict_loading_lists_every_kind_of_misfit():
    state = toy().state_dict()
    del state["encoder.inlet.bias"]
    state["ghost"] = torch.zeros(1)
    state["hidden"] = torch.zeros(7)
    fresh = toy(seed=5)
    before = fresh.encoder.inlet.weight.clone()
    wrong = r"missing: encoder\.inlet\.bias; unexpected: ghost; other shapes: hidden \(7,\)"
    with pytest.raises(ValueError, match=wrong):
        load_strict(fresh, state, "test")
    assert torch.equal(fresh.encoder.inlet.weight, before)  # nothing was half-loaded


def test_a_child_must_not_take_the_name_of_the_methods_own_file():
    with pytest.raises(ValueError, match="must not be called 'method'"):
        split(nn.ModuleDict({"method": nn.Linear(1, 1)}), {})


class TestInitFrom:
    @pytest.fixture
    def donor(self, tmp_path):
        folder = tmp_path / "run" / "checkpoints"
        save(folder, 1, toy(seed=1))
        save(folder, 2, toy(seed=2))
        return folder

    def test_run_folder_means_its_newest(self, donor):
        fresh = toy(seed=7)
        load_initial(fresh, donor.parent)
        assert torch.equal(fresh.encoder.inlet.weight, toy(seed=2).encoder.inlet.weight)

    def test_checkpoint_folder(self, donor):
        fresh = toy(seed=7)
        assert set(load_initial(fresh, donor / "step_1")) == {"encoder", "predictor", "teacher"}
        assert torch.equal(fresh.teacher.inlet.weight, toy(seed=1).teacher.inlet.weight)

    @pytest.mark.parametrize("name", ["encoder", "teacher"])
    def test_file_starts_encoder_and_teacher_alike(self, donor, name):
        fresh = toy(seed=7)
        assert load_initial(fresh, donor / "step_1" / f"{name}.safetensors") == ["encoder", "teacher"]
        assert torch.equal(fresh.encoder.inlet.weight, fresh.teacher.inlet.weight)
        assert torch.equal(fresh.predictor[0].weight, toy(seed=7).predictor[0].weight)

    def test_file_of_another_child(self, donor):
        fresh = toy(seed=7)
        assert load_initial(fresh, donor / "step_1" / "predictor.safetensors") == ["predictor"]

    def test_another_size_is_refused(self, donor):
        with pytest.raises(ValueError, match="other shapes"):
            load_initial(Toy(ToyConfig(width=9)), donor / "step_1")

    def test_nothing_there(self, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "x.safetensors").write_bytes(b"not weights")
        for path, words in [("gone", "must be a run folder"), ("empty", "got none"), ("x.safetensors", "readable")]:
            with pytest.raises(ValueError, match=words):
                load_initial(toy(), tmp_path / path)

    def test_damage_is_refused(self, donor):
        files = json.loads((donor / "step_1" / "files.json").read_text())
        files["encoder.safetensors"]["sha256"] = "0" * 64
        (donor / "step_1" / "files.json").write_text(json.dumps(files))
        with pytest.raises(ValueError, match="must be whole"):
            load_initial(toy(), donor / "step_1")
