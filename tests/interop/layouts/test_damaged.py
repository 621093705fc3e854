"""Damaged and foreign checkpoints: each refused with one sentence that says what is wrong, by load and by info."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import openjepa
from openjepa.interop import load
from openjepa.interop.layouts import LAYOUTS
from tests.interop.layouts import published as p

M = "module.backbone."


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def v2(**changes):
    """A V-JEPA 2 file whose target encoder is changed: key -> tensor, or None to take it away; no other encoder."""
    what = p.vjepa2(stale=False)
    del what["encoder"]
    for key, value in changes.items():
        name = M + key.replace("__", ".")
        if value is None:
            del what["target_encoder"][name]
        else:
            what["target_encoder"][name] = value
    return what


def without_block(what: dict, group: str, start: str) -> dict:
    what[group] = {k: v for k, v in what[group].items() if not k.removeprefix(M).startswith(start)}
    return what


def two_lengths() -> dict:
    what = p.vjepa2()
    return without_block(what, "target_encoder", "blocks.1.")


def doubled() -> dict:
    what = v2()
    what["target_encoder"] |= {"module.norm.weight": p.some(p.D)}
    return what


def many_times_one(shape_of: dict, width: int, depth: int) -> dict:
    sizes = {p.D: width, 3 * p.D: 3 * width, p.HIDDEN: 4 * width}
    big = {k: torch.zeros(1).expand([sizes.get(n, n) for n in v.shape]) for k, v in shape_of.items()}
    one = {k: v for k, v in big.items() if k.startswith("blocks.0.")}
    return {k: v for k, v in big.items() if not k.startswith("blocks.")} | {
        k.replace(".0.", f".{i}.", 1): v for i in range(depth) for k, v in one.items()
    }


def dinov2() -> dict:
    state = p.vit(3, 4, 4, tokens=17) | {"cls_token": p.some(1, 1, p.D), "mask_token": p.some(1, p.D)}
    return state | {f"blocks.{i}.ls{j}.gamma": p.some(p.D) for i in range(2) for j in (1, 2)}


def mae() -> dict:
    return p.vit(3, 4, 4, tokens=17) | p.linear("decoder_embed", 8, p.D) | {"cls_token": p.some(1, 1, p.D)}


def timm_vit() -> dict:
    return p.vit(3, 4, 4, tokens=17) | p.linear("head", 10, p.D) | {"cls_token": p.some(1, 1, p.D)}


def resnet() -> dict:
    return {f"layer{i}.0.conv1.weight": p.some(4, 4, 3, 3) for i in range(1, 5)} | p.linear("fc", 10, 4)


def bert() -> dict:
    return {"bert.embeddings.word_embeddings.weight": p.some(9, 4)} | p.norm("bert.encoder.layer.0.output.LayerNorm", 4)


def jepa_wms() -> dict:
    """Only the predictor: the frozen encoder is not in the file."""
    return {"predictor": p.linear("module.input_proj", 8, 8), "opt": {}, "scaler": None, "epoch": 4}


def clip() -> dict:
    return {"logit_scale": p.some(1), "visual.proj": p.some(4, 4), "text_model.final_layer_norm.weight": p.some(4)}


def torn_lewm() -> dict:
    return {k: v for k, v in p.lewm().items() if not k.endswith("layer.1.attention.attention.key.weight")}


BROKEN = {  # name -> (what is saved, what the sentence must say)
    "missing tensor": (lambda: v2(norm__bias=None), r"encoder \(target_encoder\): missing: norm\.bias\."),
    "missing middle block": (
        lambda: without_block(v2(), "target_encoder", "blocks.0."),
        r"must be a checkpoint of a known family.*nearest is V-JEPA 2 .*missing: blocks\.0\.attn\.qkv\.weight",
    ),
    "missing middle block of the predictor": (
        lambda: without_block(v2(), "predictor", "predictor_blocks.0."),
        r"predictor: missing: predictor_blocks\.0\.norm1\.weight.* and 7 more",
    ),
    "no patches": (
        lambda: v2(patch_embed__proj__weight=None), r"nearest is V-JEPA 2 .*missing: patch_embed\.proj\.weight",
    ),
    "extra tensor": (
        lambda: v2(head__weight=p.some(3, p.D)),
        r"extra: head\.weight\. The nearest known layout is V-JEPA 2",
    ),
    "class token": (
        lambda: v2(cls_token=p.some(1, 1, p.D)),
        r"nearest is V-JEPA 2 .*extra: cls_token.*class token of timm",
    ),
    "doubled tensor": (
        doubled,
        r"doubled keys: target_encoder: norm\.weight as module\.backbone\.norm\.weight and as module\.norm\.weight",
    ),
    "other shape": (lambda: v2(norm__bias=p.some(7)), r"other shape: norm\.bias \(7,\) for \(24,\)"),
    "transposed": (
        lambda: v2(blocks__1__mlp__fc1__weight=p.some(p.D, p.HIDDEN)),
        r"other shape: blocks\.1\.mlp\.fc1\.weight \(24, 60\) for \(60, 24\)",
    ),
    "two axes of patches": (
        lambda: v2(patch_embed__proj__weight=p.some(p.D, 768)),
        r"nearest is V-JEPA 2 .*its shapes are of another network: patch_embed\.proj\.weight \(24, 768\)",
    ),
    "integers": (
        lambda: v2(norm__weight=torch.ones(p.D, dtype=torch.int64)), r"other type: norm\.weight torch\.int64",
    ),
    "words for numbers": (lambda: v2(norm__weight="lost"), r"other type: norm\.weight str"),
    "nan": (
        lambda: v2(norm__weight=torch.full((p.D,), float("nan"))),
        r"finite numbers, got nan or inf in norm\.weight",
    ),
    "inf in the predictor": (
        lambda: (what := v2())["predictor"].update({M + "mask_tokens.3": p.some(1, 1, p.W) / 0}) or what,
        r"nan or inf in mask_tokens\.3",
    ),
    "missing mask token": (
        lambda: {k: without_block({k: v}, k, "mask_tokens.4")[k] if k == "predictor" else v for k, v in v2().items()},
        r"predictor: missing: mask_tokens\.4|extra: mask_tokens\.9",
    ),
    "two encoders of two depths": (
        two_lengths, r"must hold target_encoder and encoder with the same tensors, got a difference in blocks\.1\.",
    ),
    "fewer blocks than published": (
        lambda: many_times_one(p.vit(3, 2, 16, 16), 1024, 20),
        r"must hold 24 blocks of the encoder, .*got 20.*load\(path, depth=",
    ),
    "positions of no square": (
        lambda: p.training(target_encoder=p.vit(3, 4, 4, tokens=15)),
        "positions for a square of patches, got 15 tokens",
    ),
    "positions of no square of clips": (
        lambda: p.vjepa() | {"target_encoder": p.vit(3, 2, 4, 4, tokens=24), "encoder": p.vit(3, 2, 4, 4, tokens=24)},
        "positions of 16 frames for a square of patches, got 3 tokens",
    ),
    "a norm for too many levels": (
        lambda: (what := p.vjepa21())["target_encoder"].update(
            {f"{M}{k}": v for k, v in p.norm("norms_block.4", p.D).items()}
        ) or what,
        r"V-JEPA 2\.1 .*extra: norms_block\.4\.weight, norms_block\.4\.bias",
    ),
    "2.1 with the norm of 2": (
        lambda: (what := p.vjepa21())["target_encoder"].update({f"{M}norm.weight": p.some(p.D)}) or what,
        r"V-JEPA 2\.1 .*extra: norm\.weight",
    ),
    "2-AC without camera": (
        lambda: without_block(p.vjepa2_ac(), "predictor", "extrinsics"),
        r"must hold extrinsics_encoder\.weight with 2 axes, got none",
    ),
    "2-AC with mask tokens": (
        lambda: (what := p.vjepa2_ac())["predictor"].update({f"{M}mask_tokens.0": p.some(1, 1, p.W)}) or what,
        r"V-JEPA 2-AC .*predictor: extra: mask_tokens\.0",
    ),
    "another network beside it": (
        lambda: v2() | {"decoder": p.linear("head", 3, 3)}, r"must hold the parts of V-JEPA 2, got decoder beside them",
    ),
    "optimiser alone": (
        lambda: {"opt": {"state": {}, "param_groups": []}, "epoch": 3},
        "no tensors but opt, epoch.*Known families: I-JEPA",
    ),
    "predictor alone": (
        lambda: {"predictor": v2()["predictor"]},
        r"nearest is V-JEPA.*missing: patch_embed\.proj\.weight",
    ),
    "nothing": (dict, "empty file of torch.save"),
    "a list": (lambda: [p.some(3)], "must hold named tensors, got list"),
    "a tensor": (lambda: p.some(3), "must hold named tensors, got Tensor"),
    "torn LeWM": (torn_lewm, r"q, k or v missing for \['blocks\.1\.attn\.qkv\.weight'\]"),
    "LeWM with another predictor": (
        lambda: p.lewm() | {"predictor.transformer.cond_proj.weight": p.some(p.D, p.D)},
        r"LeWM .*extra: predictor\.transformer\.cond_proj\.weight",
    ),
    "classifier without query block": (
        lambda: without_block(p.classifier(0), "classifier", "module.pooler.cross_attention_block.xattn.kv"),
        r"V-JEPA classifier .*missing: pooler\.cross_attention_block\.xattn\.kv\.weight",
    ),
    "DINOv2": (dinov2, r"extra: .*It looks like DINOv2"),
    "MAE": (mae, "It looks like MAE"),
    "ViT of timm": (timm_vit, "class token of timm"),
    "ResNet": (resnet, "It looks like a ResNet"),
    "BERT": (bert, "It looks like a language model"),
    "CLIP": (clip, "It looks like CLIP"),
    "jepa-wms": (jepa_wms, r"2 tensors such as input_proj\.weight.*Known families"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_refused_with_a_sentence(name, tmp_path):
    write, says = BROKEN[name]
    torch.save(write(), tmp_path / "checkpoint.pt")
    for read in (lambda path: load(path, heads=p.HEADS_ASKED), openjepa.info):
        with pytest.raises(ValueError, match=says) as e:
            read(tmp_path / "checkpoint.pt")
        sentence = str(e.value)
        assert "\n" not in sentence and "checkpoint.pt" in sentence and len(sentence) < 900


def files(folder: Path) -> dict[str, tuple[bytes, str]]:
    torch.save(v2(), folder / "whole.pt")
    whole = (folder / "whole.pt").read_bytes()
    torch.save(v2(), folder / "old.pt", _use_new_zipfile_serialization=False)
    old = (folder / "old.pt").read_bytes()
    p.saved(p.vit(3, 2, 4, 4), folder, "w.safetensors")
    safe = (folder / "w.safetensors").read_bytes()
    code = folder / "code.pt"
    torch.save({"encoder": torch.nn.Linear(2, 2)}, code)
    return {
        "truncated": (whole[: len(whole) // 2], "whole file of torch.save, got damage"),
        "truncated old format": (old[: len(old) // 2], "damage|run code"),
        "truncated safetensors": (safe[:-50], "whole .safetensors file, got damage"),
        "empty": (b"", "an empty file"),
        "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        "web page": (b"<html><body>404</body></html>", "a web page"),
        "code": (code.read_bytes(), "opening it would run code.*safetensors"),
        "tar.gz": (b"\x1f\x8b" + bytes(100), "a gzip archive"),
        "noise": (bytes(range(256)), "something unknown"),
    }


def test_broken_files(tmp_path):
    for name, (content, says) in files(tmp_path).items():
        path = tmp_path / "checkpoint.pt"
        path.write_bytes(content)
        for read in (load, openjepa.info):
            with pytest.raises(ValueError, match=says) as e:
                read(path)
            assert "\n" not in str(e.value), name


def test_there_are_at_least_25():
    assert len(BROKEN) >= 25


def test_folders(tmp_path):
    """A folder of transformers with two weights, with none, with a model that has no layout."""
    p.saved(p.vit(3, 4, 4, tokens=16), tmp_path / "a", "one.safetensors")
    (tmp_path / "a" / "config.json").write_text(json.dumps({"model_type": "ijepa"}))
    p.saved(p.vit(3, 4, 4, tokens=16), tmp_path / "a", "two.safetensors")
    with pytest.raises(ValueError, match=r"one file of weights, got one\.safetensors, two\.safetensors"):
        load(tmp_path / "a")
    for name in ("one", "two"):
        (tmp_path / "a" / f"{name}.safetensors").unlink()
    with pytest.raises(ValueError, match="one file of weights, got none"):
        load(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    with pytest.raises(ValueError, match="'dinov2' model of transformers"):
        load(tmp_path / "a")


def test_heads_that_nobody_tells(tmp_path):
    path = p.saved(p.ijepa(), tmp_path)
    with pytest.raises(ValueError, match=r"heads of the encoder .* must be given for width 24.*heads=\{'encoder': N\}"):
        load(path)
    with pytest.raises(ValueError, match="heads of the encoder must divide its width 24, got 5"):
        load(path, heads=5)
    with pytest.raises(ValueError, match="family must be one of I-JEPA"):
        load(path, heads=2, family="V-JEPA 3")
    with pytest.raises(ValueError, match="must hold target_encoder, got none"):
        load(p.saved(p.vjepa2_ac(), tmp_path), heads=p.HEADS_ASKED, weights="teacher")


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_family_that_a_file_is_not(family, tmp_path):
    """Named by the user, it is held to that layout as strictly: no other error comes out than a sentence."""
    written = {"I-JEPA": p.ijepa, "V-JEPA": p.vjepa, "V-JEPA 2": p.vjepa2, "V-JEPA 2.1": p.vjepa21, "LeWM": p.lewm}
    written |= {"V-JEPA 2-AC": p.vjepa2_ac, "V-JEPA classifier": lambda: p.classifier(0)}
    written |= {"V-JEPA 2 classifier": lambda: p.classifier(3), "bare": lambda: p.vit(3, 2, 16, 16), "resnet": resnet}
    near = {("V-JEPA", "V-JEPA 2"), ("V-JEPA 2", "V-JEPA"), ("V-JEPA 2", "V-JEPA 2-AC"), ("V-JEPA 2", "bare")}
    for name, write in written.items():
        path = p.saved(write(), tmp_path)
        if name == family or (family, name) in near:
            continue  # these may be read as each other: that is why the user is asked
        with pytest.raises(ValueError, match=r"weights\.pt") as e:
            load(path, heads=p.HEADS_ASKED, family=family)
        assert "\n" not in str(e.value)


def test_a_classifier_of_another_encoder(tmp_path):
    probe = p.classifier(3)
    state = {k: v[..., :12] if v.shape[-1] == p.D and "query" in k else v for k, v in probe["classifiers"][0].items()}
    path = p.saved(p.vjepa2(False), tmp_path)
    with pytest.raises(ValueError, match=r"other shape: pooler\.query_tokens \(1, 1, 12\) for \(1, 1, 24\)"):
        load(path, heads=p.HEADS_ASKED, classifier=p.saved({"classifiers": [state]}, tmp_path, "probe.pt"))
    with pytest.raises(ValueError, match=r"must be a file of an attentive classifier, got V-JEPA 2 in"):
        load(path, heads=p.HEADS_ASKED, classifier=path)
