"""Checkpoints in the layouts that others publish, tiny and random, written out by hand: no name comes from ours."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]
D, DEPTH, HEADS, HIDDEN = 24, 2, 2, 60  # heads of 12: each axis turns 4 features
W, PRED_DEPTH = 36, 2  # predictor; heads of 18: each axis turns 6 features


def some(*shape: int) -> Tensor:
    return 0.2 * torch.randn(shape)


def linear(name: str, out: int, inside: int) -> State:
    return {f"{name}.weight": some(out, inside), f"{name}.bias": some(out)}


def norm(name: str, dim: int) -> State:
    return {f"{name}.weight": 1 + some(dim), f"{name}.bias": some(dim)}


def blocks(name: str, depth: int, dim: int, hidden: int) -> State:
    state: State = {}
    for i in range(depth):
        at = f"{name}.{i}"
        state |= norm(f"{at}.norm1", dim) | linear(f"{at}.attn.qkv", 3 * dim, dim) | linear(f"{at}.attn.proj", dim, dim)
        state |= norm(f"{at}.norm2", dim) | linear(f"{at}.mlp.fc1", hidden, dim) | linear(f"{at}.mlp.fc2", dim, hidden)
    return state


def wrapped(state: State, prefix: str) -> State:
    return {prefix + k: v for k, v in state.items()}


def vit(*patch: int, tokens: int | None = None, depth: int = DEPTH) -> State:
    """Meta's transformer: `patch` is the kernel (C, [tubelet,] p, p); `tokens` of a table of positions."""
    state: State = {"patch_embed.proj.weight": some(D, *patch), "patch_embed.proj.bias": some(D)}
    if tokens:
        state |= {"pos_embed": some(1, tokens, D)}
    return state | blocks("blocks", depth, D, HIDDEN) | norm("norm", D)


def predictor(masks: int, tokens: int | None, inside: int = D, out: int = D) -> State:
    """Meta's predictor: one mask token (masks = 0, I-JEPA) or several; `tokens` of its table of positions."""
    state = linear("predictor_embed", W, inside)
    state |= {f"mask_tokens.{i}": some(1, 1, W) for i in range(masks)} or {"mask_token": some(1, 1, W)}
    state |= {"predictor_pos_embed": some(1, tokens, W)} if tokens else {}
    state |= blocks("predictor_blocks", PRED_DEPTH, W, 4 * W) | norm("predictor_norm", W)
    return state | linear("predictor_proj", out, W)


def training(**groups: State) -> dict:
    """What Meta's training code saves around the networks."""
    optimiser = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": some(4)}}, "param_groups": [{"lr": 0.1}]}
    rest = {"opt": optimiser, "scaler": None, "epoch": 3, "loss": 0.5, "batch_size": 8, "world_size": 1, "lr": 1e-3}
    return groups | rest


def ijepa() -> dict:
    """Patches of 4, pictures of 16."""
    groups = {"encoder": vit(3, 4, 4, tokens=16), "target_encoder": vit(3, 4, 4, tokens=16)}
    return training(**{k: wrapped(v, "module.") for k, v in (groups | {"predictor": predictor(0, 16)}).items()})


def vjepa() -> dict:
    """Tubelets of 2 x 4 x 4, clips of 16 frames of 8 pixels: 8 x 2 x 2 tokens."""
    groups = {"encoder": vit(3, 2, 4, 4, tokens=32), "target_encoder": vit(3, 2, 4, 4, tokens=32)}
    groups |= {"predictor": predictor(2, 32)}
    return training(**{k: wrapped(v, "module.backbone.") for k, v in groups.items()})


def vjepa2(stale: bool = True) -> dict:
    """Tubelets of 2 x 16 x 16 and stale tables of positions, for 64 frames of 384 pixels."""
    tokens = 32 * 24 * 24 if stale else None
    groups = {"encoder": vit(3, 2, 16, 16, tokens=tokens), "target_encoder": vit(3, 2, 16, 16, tokens=tokens)}
    groups |= {"predictor": predictor(10, tokens)}
    return training(**{k: wrapped(v, "module.backbone.") for k, v in groups.items()})


def vjepa21(levels: int = 4) -> dict:
    """Four levels of four blocks; distilled students (levels = 1) predict a teacher of another width."""
    encoder = vit(3, 2, 16, 16, depth=4)
    del encoder["norm.weight"], encoder["norm.bias"]
    for i in range(4):
        encoder |= norm(f"norms_block.{i}", D)
    encoder |= {"patch_embed_img.proj.weight": some(D, 3, 1, 16, 16), "patch_embed_img.proj.bias": some(D)}
    told = {"img_mod_embed": some(1, 1, D), "video_mod_embed": some(1, 1, D)}
    out = 4 * D if levels == 4 else 28
    guess = predictor(8, None, out=out) | linear("predictor_proj_context", out, W)
    guess |= {"img_mod_embed": some(1, 1, W), "video_mod_embed": some(1, 1, W)}
    if levels == 4:
        del guess["predictor_embed.weight"], guess["predictor_embed.bias"]
        guess |= linear("predictor_embed.0", D, 4 * D) | linear("predictor_embed.2", W, D)
    name = "target_encoder" if levels == 4 else "ema_encoder"
    groups = {name: encoder | told, "predictor": guess}
    return training(**{k: wrapped(v, "module.backbone.") for k, v in groups.items()})


def vjepa2_ac() -> dict:
    state = linear("predictor_embed", W, D) | linear("action_encoder", W, 7) | linear("state_encoder", W, 7)
    state |= linear("extrinsics_encoder", W, 6) | blocks("predictor_blocks", PRED_DEPTH, W, 4 * W)
    state |= norm("predictor_norm", W) | linear("predictor_proj", D, W)
    groups = {"encoder": vit(3, 2, 16, 16, tokens=64), "predictor": state}
    return {k: wrapped(v, "module.backbone.") for k, v in groups.items()}


def classifier(depth: int, count: int = 1) -> dict:
    """An attentive classifier; V-JEPA's (depth 0) has an output projection that was never applied."""

    def one() -> State:
        at = "pooler.cross_attention_block"
        state: State = {"pooler.query_tokens": some(1, 1, D)}
        state |= norm(f"{at}.norm1", D) | linear(f"{at}.xattn.q", D, D) | linear(f"{at}.xattn.kv", 2 * D, D)
        state |= norm(f"{at}.norm2", D) | linear(f"{at}.mlp.fc1", 4 * D, D) | linear(f"{at}.mlp.fc2", D, 4 * D)
        state |= blocks("pooler.blocks", depth, D, 4 * D) | linear("linear", 5, D)
        state |= {} if depth else linear(f"{at}.xattn.proj", D, D)
        return wrapped(state, "module.")

    return {"classifier": one()} if depth == 0 else {"classifiers": [one() for _ in range(count)], "epoch": 1}


def lewm(names: str = "v4") -> State:
    """The published state with fewer layers: 21 + 2 * 16 tensors of the ViT and so on."""
    state: State = {
        "encoder.embeddings.cls_token": some(1, 1, D),
        "encoder.embeddings.position_embeddings": some(1, 17, D),
        "encoder.embeddings.patch_embeddings.projection.weight": some(D, 3, 4, 4),
        "encoder.embeddings.patch_embeddings.projection.bias": some(D),
    } | norm("encoder.layernorm", D)
    inside = {
        "v4": ("attention.attention.query", "attention.attention.key", "attention.attention.value",
               "attention.output.dense", "intermediate.dense", "output.dense"),
        "v5": ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"),
    }[names]  # fmt: skip
    for i in range(DEPTH):
        at = f"encoder.encoder.layer.{i}" if names == "v4" else f"encoder.layers.{i}"
        state |= norm(f"{at}.layernorm_before", D) | norm(f"{at}.layernorm_after", D)
        for name in inside[:4]:
            state |= linear(f"{at}.{name}", D, D)
        state |= linear(f"{at}.{inside[4]}", HIDDEN, D) | linear(f"{at}.{inside[5]}", D, HIDDEN)
    for head in ("projector", "pred_proj"):
        state |= linear(f"{head}.net.0", 40, D) | norm(f"{head}.net.1", 40) | linear(f"{head}.net.3", D, 40)
        state |= {f"{head}.net.1.running_mean": some(40), f"{head}.net.1.running_var": 1 + some(40).abs()}
        state |= {f"{head}.net.1.num_batches_tracked": torch.tensor(7)}
    state |= {"action_encoder.patch_embed.weight": some(10, 10, 1), "action_encoder.patch_embed.bias": some(10)}
    state |= linear("action_encoder.embed.0", 4 * D, 10) | linear("action_encoder.embed.2", D, 4 * D)
    state |= {"predictor.pos_embedding": some(1, 3, D)} | norm("predictor.transformer.norm", D)
    for i in range(2):
        at = f"predictor.transformer.layers.{i}"
        state |= norm(f"{at}.attn.norm", D) | {f"{at}.attn.to_qkv.weight": some(3 * 128, D)}
        state |= linear(f"{at}.attn.to_out.0", D, 128) | norm(f"{at}.mlp.net.0", D) | linear(f"{at}.mlp.net.1", 50, D)
        state |= linear(f"{at}.mlp.net.4", D, 50) | linear(f"{at}.adaLN_modulation.1", 6 * D, D)
    return state


def saved(what: dict, folder: Path, name: str = "weights.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file({k: v.contiguous() for k, v in what.items()}, folder / name)
    else:
        torch.save(what, folder / name)
    return folder / name


def transformers_folder(model, folder: Path, prefix: str = "", config: bool = True) -> Path:
    """A model of transformers as its save_pretrained would leave it, with the keys of its own state."""
    saved(wrapped(dict(model.state_dict()), prefix), folder, "model.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    return folder


HEADS_ASKED = {"encoder": HEADS, "predictor": 2, "classifier": HEADS}
