"""Foreign networks: every output shape a user's module may have, libraries that are absent or broken."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from openjepa.nn import EncoderConfig, build_encoder, wrap


class Shaped(nn.Module):
    """A module whose output for a picture has the shape that a test wants."""

    def __init__(self, form: str, tokens: int = 16):
        super().__init__()
        self.form, self.tokens = form, tokens
        self.net = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6))

    def forward(self, x):
        y = self.net(x)  # (B, 6, 4, 4)
        rows = y.flatten(2).transpose(1, 2)
        rows = torch.cat([y.mean((2, 3))[:, None].expand(-1, max(0, self.tokens - 16), -1), rows], 1)[:, -self.tokens :]
        return {
            "map": y,
            "vector": y.mean((2, 3)),
            "tokens": rows,
            "tuple": (rows, None),
            "mapping": {"last_hidden_state": rows, "pooler_output": None},
        }[self.form]


@pytest.mark.parametrize(
    ("form", "count", "grid", "prefix"),
    [
        ("map", 16, (4, 4), 0), ("vector", 16, (1, 1), 0), ("tokens", 16, (4, 4), 0), ("tokens", 17, (4, 4), 1),
        ("tokens", 21, (4, 4), 5), ("tokens", 20, (1, 20), 0), ("tuple", 16, (4, 4), 0), ("mapping", 18, (4, 4), 2),
    ],
)  # fmt: skip
def test_output_shapes(form, count, grid, prefix):
    module = Shaped(form, count)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    encoder = wrap(module, size=16)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())  # looking moves no statistic
    assert module.training and (encoder.dim, encoder.grid, encoder.prefix, encoder.patch) == (6, grid, prefix, None)
    tokens = encoder(torch.randn(3, 3, 16, 16))
    assert tokens.shape == (3, prefix + grid[0] * grid[1], 6)
    tokens.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert torch.equal(encoder.eval().layers(torch.ones(3, 3, 16, 16), [-1])[0], encoder(torch.ones(3, 3, 16, 16)))


def test_map_order_is_raster_order():
    encoder = wrap(nn.Conv2d(3, 6, 4, stride=4), size=16)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(encoder(x)[:, 6], encoder.module(x)[:, :, 1, 2])


def test_given_prefix_wins():
    assert wrap(Shaped("tokens", 19), size=16, prefix=3).grid == (4, 4)
    assert wrap(Shaped("tokens", 16), size=16, prefix=4).grid == (1, 12)


def test_an_encoder_is_left_alone():
    encoder = build_encoder("vit_micro/4", size=16)
    assert wrap(encoder, size=16) is encoder


def test_what_a_wrapped_module_cannot_do():
    encoder = wrap(Shaped("map"), size=16)
    with pytest.raises(ValueError, match="whole pictures"):
        encoder(torch.zeros(1, 3, 16, 16), keep=torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="insides are not known"):
        encoder.layers(torch.zeros(1, 3, 16, 16), [2])


class Returns(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, x):
        return self.what


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (torch.zeros(2), r"got \(2,\) for 2 pictures"),
        (torch.zeros(3, 4), r"got \(3, 4\) for 2 pictures"),
        ({"logits": torch.zeros(2, 3)}, r"last_hidden_state, got \['logits'\]"),
        ("text", "got str"),
    ],
)
def test_modules_that_return_something_else(what, says):
    with pytest.raises(ValueError, match=says):
        wrap(Returns(what), size=16)


FACTORY = """
    from torch import nn
    def sized(size, channels): return nn.Sequential(nn.Conv2d(channels, size, 4, stride=4))
    def plain(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    def wrong(): return 3
    def own(size):
        from openjepa.nn import build_encoder
        return build_encoder("vit_micro/4", size=size)
"""


def test_factories(tmp_path, monkeypatch):
    (tmp_path / "mynets.py").write_text(textwrap.dedent(FACTORY))
    monkeypatch.syspath_prepend(tmp_path)
    assert build_encoder("py:mynets:sized", size=8, channels=1)(torch.zeros(2, 1, 8, 8)).shape == (2, 4, 8)
    assert build_encoder("py:mynets:plain", size=8).dim == 5
    assert build_encoder("py:mynets:own", size=8).patch == 4
    for name, says in [("mynets:wrong", "got int"), ("mynets:absent", "no attribute"), ("nowhere:f", "No module")]:
        with pytest.raises(ValueError, match=says):
            build_encoder(f"py:{name}", size=8)
    with pytest.raises(ValueError, match="width must be left"):
        build_encoder(EncoderConfig(name="py:mynets:plain", width=8), size=8)


def test_hf_from_a_local_folder(tmp_path):
    """Architecture from a config folder at our size; weights only when asked; interpolated at other sizes; layers."""
    transformers = pytest.importorskip("transformers")
    settings = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4
    )
    saved = transformers.ViTModel(settings).eval()
    saved.save_pretrained(tmp_path)
    fresh = build_encoder(f"hf/{tmp_path}", size=24, channels=1)
    assert (fresh.dim, fresh.grid, fresh.prefix) == (16, (6, 6), 1)
    encoder = build_encoder(EncoderConfig(name=f"hf/{tmp_path}", pretrained=True), size=16).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), saved(pixel_values=x).last_hidden_state)
        first, last = encoder.layers(x, [0, -1])
        assert torch.equal(last, encoder(x))
        want = saved(pixel_values=x, output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(first, want)
        assert encoder(torch.randn(2, 3, 24, 24)).shape == (2, 37, 16)


def test_hf_unknown_name():
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="must be able to open 'no/such-model'"):
        build_encoder("hf/no/such-model", size=16)


FAKE_TIMM = """
    import torch
    from torch import nn
    class Net(nn.Module):
        num_features = 6
        def __init__(self, channels, last):
            super().__init__()
            self.conv, self.last = nn.Conv2d(channels, 6, 4, stride=4), last
        def forward_features(self, x):
            y = self.conv(x)
            return y.permute(0, 2, 3, 1) if self.last else y
    class Vit(Net):
        num_prefix_tokens = 3
        def forward_features(self, x):
            y = self.conv(x).flatten(2).transpose(1, 2)
            return torch.cat([y[:, :3], y], 1)
    def create_model(name, pretrained=False, num_classes=1000, in_chans=3, drop_path_rate=0.0, **more):
        assert num_classes == 0 and not pretrained
        if name == "vit":
            assert more == {"img_size": 16}
            return Vit(in_chans, False)
        if more:
            raise TypeError("unexpected keyword argument 'img_size'")
        if name not in ("conv", "features_last"):
            raise RuntimeError(f"Unknown model ({name})")
        return Net(in_chans, name == "features_last")
"""


def test_timm_conventions(tmp_path, monkeypatch):
    """Against a stand-in with timm's calling conventions: map order, prefix tokens, picture size, unknown names."""
    (tmp_path / "timm.py").write_text(textwrap.dedent(FAKE_TIMM))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    for name in ("conv", "features_last"):
        encoder = build_encoder(f"timm/{name}", size=16, channels=1)
        assert (encoder.dim, encoder.grid, encoder.prefix) == (6, (4, 4), 0)
    vit = build_encoder("timm/vit", size=16)
    assert (vit.dim, vit.grid, vit.prefix) == (6, (4, 4), 3)
    with pytest.raises(ValueError, match="know the model 'resnext'"):
        build_encoder("timm/resnext", size=16)
    sys.modules.pop("timm", None)


BROKEN = """
    import sys
    sys.path.insert(0, {folder!r})
    import openjepa, openjepa.nn as nets
    assert not {{"torchvision", "timm", "transformers"}} & set(sys.modules), "a heavy library was imported"
    nets.build_encoder("vit_micro/4", size=16)
    try:
        nets.build_encoder("timm/resnet18", size=32)
    except ValueError as e:
        print(e)
"""


@pytest.mark.parametrize("how", ["broken", "absent"])
def test_a_broken_torchvision_breaks_nothing_else(how, tmp_path):
    if how == "broken":  # what timm does at import, and what a torchvision built for another torch does
        (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
        (tmp_path / "timm.py").write_text("import torchvision\n")
    else:
        (tmp_path / "timm.py").write_text("raise ModuleNotFoundError(\"No module named 'timm'\")\n")
    script = textwrap.dedent(BROKEN).format(folder=str(tmp_path))
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    says = "RuntimeError: operator torchvision::nms does not exist" if how == "broken" else "No module named 'timm'"
    assert says in done.stdout and "pip install 'openjepa[timm]'" in done.stdout
