"""The contract of every encoder in the table, at a size that takes milliseconds."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from openjepa.config import parse
from openjepa.nn import ENCODERS, Encoder, EncoderConfig, build_encoder, pool
from openjepa.nn.conv import ConvEncoder
from openjepa.nn.vit import SIZES, ViT

PUBLISHED = {  # width, depth, heads, MLP hidden width: I-JEPA's table
    "vit_tiny": (192, 12, 3, 768),
    "vit_small": (384, 12, 6, 1536),
    "vit_base": (768, 12, 12, 3072),
    "vit_large": (1024, 24, 16, 4096),
    "vit_huge": (1280, 32, 16, 5120),
    "vit_giant": (1408, 40, 16, 6144),
    "vit_gigantic": (1664, 48, 16, 8192),
}
PARAMETERS = {  # of the published networks without their classification layer, pictures of 224 pixels
    "resnet18": 11_176_512,
    "resnet50": 23_508_032,
    "convnext_tiny": 27_820_128,
    "vit_base/16": 85_798_656 - 197 * 768 - 768,  # here without trained positions and class token
}


def tiny(name: str, **changes) -> EncoderConfig:
    """The named network with its own structure, but narrow and shallow where that is a setting."""
    if name in SIZES:
        changes = {"width": 48, "depth": 3, "heads": 4, "patch": 4} | changes
    else:
        changes = {"width": 8} | changes
    return EncoderConfig(name=name, **changes)


VARIANTS = [
    *(pytest.param(tiny(name), id=name) for name in ENCODERS),
    pytest.param(tiny("vit_tiny", pos="rope"), id="rope"),
    pytest.param(tiny("vit_tiny", cls=True, registers=2), id="cls+registers"),
    pytest.param(tiny("vit_tiny", pos="rope", cls=True, registers=3, drop_path=0.2), id="rope+cls+registers+drop_path"),
    pytest.param(tiny("resnet18", stem="large"), id="resnet18-large-stem"),
    pytest.param(tiny("convnext_atto", patch=4, drop_path=0.2), id="convnext_atto-patch4"),
]


@pytest.fixture(params=VARIANTS)
def encoder(request) -> Encoder:
    return build_encoder(request.param, size=32)


def test_shapes_also_at_other_sizes(encoder):
    encoder.eval()
    with torch.no_grad():
        for size in ((32, 32), (48, 48), (32, 64)):
            tokens = encoder(torch.randn(2, 3, *size))
            n = encoder.grid[0] * encoder.grid[1]
            if size == (32, 32):
                assert tokens.shape == (2, encoder.prefix + n, encoder.dim)
            assert tokens.shape[0] == 2 and tokens.shape[2] == encoder.dim and tokens.isfinite().all()
    assert pool(tokens, encoder.prefix).shape == (2, encoder.dim)


def test_gradient_reaches_every_parameter(encoder):
    encoder.eval()  # drop path may not hide a branch
    tokens = encoder(torch.randn(4, 3, 32, 32))
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_under_autocast(encoder, dtype):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        tokens = encoder(torch.randn(4, 3, 32, 32))
        loss = tokens.float().square().mean()
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in encoder.parameters())


def test_state_round_trips_and_repeats(encoder, request):
    cfg, x = request.node.callspec.params["encoder"], torch.randn(2, 3, 32, 32)
    other = build_encoder(cfg, size=32).eval()
    encoder.eval()
    with torch.no_grad():
        assert not torch.equal(other(x), encoder(x))
        other.load_state_dict(encoder.state_dict(), strict=True)
        assert torch.equal(other(x), encoder(x))
    assert all(v.is_contiguous() for v in encoder.state_dict().values())  # as safetensors wants it


def test_layers(encoder):
    encoder.eval()
    x, depth = torch.randn(2, 3, 32, 32), len(encoder.blocks)
    with torch.no_grad():
        first, last, again = encoder.layers(x, [0, -1, depth - 1])
        assert torch.equal(last, encoder(x)) and torch.equal(last, again)
        assert first.dim() == 3 and len(first) == 2
        with pytest.raises(ValueError, match=f"{depth} blocks"):
            encoder.layers(x, [depth])


def test_checkpointing_changes_no_number(encoder):
    x = torch.randn(4, 3, 32, 32)
    found = []
    for flag in (False, True):
        encoder.checkpoint = flag
        encoder.zero_grad()
        torch.manual_seed(1)  # drop path draws
        encoder(x).square().mean().backward()
        found.append([p.grad.clone() for p in encoder.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_keep_is_for_transformers(encoder):
    keep = torch.tensor([[0, 3, 5]] * 2)
    if encoder.patch is None:
        assert isinstance(encoder, ConvEncoder)
        with pytest.raises(ValueError, match="whole pictures"):
            encoder(torch.randn(2, 3, 32, 32), keep=keep)
    else:
        assert encoder(torch.randn(2, 3, 32, 32), keep=keep).shape == (2, encoder.prefix + 3, encoder.dim)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (12, 3), (28, 1)])
def test_tiny_and_grey_pictures(name, size, channels):
    patch = {"patch": 2} if name in SIZES else {}
    encoder = build_encoder(tiny(name, **patch), size=size, channels=channels)
    tokens = encoder(torch.randn(4, channels, size, size))
    assert tokens.shape == (4, encoder.grid[0] * encoder.grid[1], encoder.dim)


def test_published_sizes():
    for name, want in PUBLISHED.items():
        with torch.device("meta"):
            vit = build_encoder(EncoderConfig(name=f"{name}/16"), size=32)
        block = vit.blocks[0]
        assert (vit.dim, len(vit.blocks), block.attn.heads, block.mlp.fc1.out_features) == want


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        encoder = build_encoder(name, size=224)
    assert sum(p.numel() for p in encoder.parameters()) == PARAMETERS[name]


def test_stems():
    assert build_encoder("resnet18", size=32).grid == (4, 4)  # no early stride
    assert build_encoder("resnet18", size=96).grid == (3, 3)
    assert build_encoder(EncoderConfig(name="resnet18", stem="small", width=8), size=96).grid == (12, 12)
    assert build_encoder(EncoderConfig(name="convnext_atto", width=8), size=64).grid == (4, 4)
    assert build_encoder(EncoderConfig(name="convnext_atto", width=8), size=128).grid == (4, 4)
    assert build_encoder(EncoderConfig(name="convnext_atto/1", width=8), size=32).grid == (4, 4)
    assert [build_encoder("convnet_tiny", size=s).grid[0] for s in (8, 16, 28, 32)] == [2, 4, 4, 4]


def test_patch_side():
    cases = {"vit_tiny/8": 8, "vit_tiny": 4}
    assert {name: EncoderConfig.model_validate(name).patch_for(32) for name in cases} == cases
    assert EncoderConfig(name="vit_tiny", patch=16).patch_for(32) == 16
    assert [EncoderConfig(name="vit_tiny").patch_for(s) for s in (8, 28, 96, 224)] == [2, 4, 8, 16]
    assert isinstance(build_encoder("vit_tiny/8", size=32), ViT)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("vit_tny/8", "Did you mean 'vit_tiny'"),
        ("vit_tiny/big", "end in a patch side"),
        ("vit_tiny/0", "end in a patch side"),
        ({"name": "vit_tiny/8", "patch": 4}, "Give one of the two"),
        ({"name": "resnet18", "pretrained": True}, "no published weights"),
        ({"name": "vit_tiny", "heds": 3}, "Did you mean 'heads'"),
    ],
)
def test_settings_that_make_no_sense(settings, says):
    with pytest.raises(ValueError, match=says):
        parse(EncoderConfig, settings)


@pytest.mark.parametrize(
    ("settings", "size", "says"),
    [
        ({"name": "resnet18", "cls": True}, 32, "cls must be left at False"),
        ({"name": "resnet18/4"}, 32, "no patch side"),
        ({"name": "convnet_tiny", "heads": 2}, 32, "heads must be left"),
        ({"name": "vit_tiny", "stem": "small"}, 32, "stem must be 'auto' or 'conv'"),
        ({"name": "vit_tiny/5"}, 32, "multiple of the patch side 5"),
        ({"name": "vit_tiny/4", "width": 100}, 32, "multiple of heads"),
        ({"name": "vit_tiny/4", "width": 102}, 32, "multiple of 4"),
        ({"name": "vit_tiny/4", "width": 96, "heads": 16, "pos": "rope"}, 32, "rotary"),
        ({"name": "convnext_atto/16"}, 8, "at least the patch side"),
    ],
)
def test_networks_that_cannot_be_built(settings, size, says):
    with pytest.raises(ValueError, match=says):
        build_encoder(EncoderConfig.model_validate(settings), size=size)


def test_pictures_that_do_not_fit():
    vit, net = build_encoder(tiny("vit_tiny"), size=32), build_encoder(tiny("convnext_atto"), size=32)
    with pytest.raises(ValueError, match=r"multiples of the patch side 4, got \(2, 3, 30, 32\)"):
        vit(torch.zeros(2, 3, 30, 32))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        vit(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ValueError, match="at least 16 pixels"):
        net(torch.zeros(2, 3, 8, 8))


def test_config_is_strict_and_frozen():
    cfg = EncoderConfig.model_validate("vit_tiny/8")
    with pytest.raises(ValidationError):
        cfg.width = 3
    assert EncoderConfig.model_validate(cfg.model_dump()) == cfg


def test_pool():
    tokens = torch.arange(2 * 5 * 3.0).view(2, 5, 3)
    assert torch.equal(pool(tokens, 2), tokens[:, 2:].mean(1))
    assert torch.equal(pool(tokens, 2, "max"), tokens[:, 4])
    assert torch.equal(pool(tokens, 2, "mean+cls"), torch.cat([tokens[:, 2:].mean(1), tokens[:, 0]], 1))
    with pytest.raises(ValueError, match="class token"):
        pool(tokens, 0, "cls")
    with pytest.raises(ValueError, match="'median'"):
        pool(tokens, 0, "median")
