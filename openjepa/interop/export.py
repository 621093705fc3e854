"""Weights for other programs: our own folder, transformers' layout, ONNX. Each is written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from openjepa.interop.card import Card, card_text, code_version
from openjepa.interop.hf import hf_ijepa_config, to_hf_ijepa
from openjepa.interop.hf_clips import hf_video_processor, hf_vjepa2
from openjepa.interop.model import Model
from openjepa.interop.preprocess import ClipPreprocess
from openjepa.nn.clip_vit import ClipViT
from openjepa.nn.encoder import pool
from openjepa.nn.vit import ViT

RESAMPLE = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers, as the image processors of transformers want them


def export(model: Model, to: str | Path, *, card: Card | None = None) -> Path:
    """A folder that `openjepa.interop.load` opens: config.json, model.safetensors and README.md, the model card.

    `to` must not exist or be empty. The weights are in float32, by the names of our modules.
    """
    keep = ("method", "encoder", "data", "step", "licence")
    config = {"format": "openjepa/1", **{k: model.config[k] for k in keep if k in model.config}}
    config |= {"weights": model.weights, "preprocess": model.preprocess.as_dict()}
    config["version"] = model.config.get("version") or code_version()
    if not isinstance(config.get("encoder"), dict):
        raise ValueError(
            "model must know its encoder's settings to be exported in our format, got none in its config. "
            "Train with an encoder by name, or export it as ONNX."
        )
    what = "clip.mp4" if isinstance(model.preprocess, ClipPreprocess) else "picture.jpg"
    use = f"""
from openjepa.interop import load
tokens, pooled = load("FOLDER").encode("{what}")
"""
    files = {
        "config.json": json.dumps(config, indent=2) + "\n",
        "README.md": card_text(model, card or Card(), library="openjepa", use=use),
    }
    return _write_folder(Path(to), files, model.encoder.state_dict())


def export_hf(model: Model, to: str | Path, *, card: Card | None = None) -> Path:
    """A folder that `transformers.AutoModel.from_pretrained` opens, with the same numbers.

    Pictures become an IJepaModel: ViTs with sine-cosine positions, without class token and registers. Clips become a
    VJEPA2Model: transformers with the rotary positions of V-JEPA 2 and one level, their predictor with them where it is
    known. All others have no such layout and raise a `ValueError` that says why. The file beside the weights gives
    `AutoImageProcessor` or `AutoVideoProcessor` our size, crop and normalisation. `load` opens the folder too.
    """
    if isinstance(model.encoder, ClipViT):
        return _hf_clips(model, to, card or Card())
    encoder, p = model.encoder, model.preprocess
    if not isinstance(encoder, ViT):
        raise ValueError(
            f"encoder must be a ViT to become an IJepaModel, got {type(encoder).__name__}. Export it in our own format."
        )
    state = encoder.state_dict()
    weights = to_hf_ijepa(state)
    config = hf_ijepa_config(state, heads=encoder.dim // encoder.head_dim)
    config["openjepa"] = own_facts(model, card or Card())
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": p.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": p.size},
        "resample": RESAMPLE[p.resample],
        "do_center_crop": True,
        "crop_size": {"height": p.size, "width": p.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(p.mean),
        "image_std": list(p.std),
    }
    use = """
from PIL import Image
from transformers import AutoImageProcessor, AutoModel
picture = AutoImageProcessor.from_pretrained("FOLDER")(Image.open("picture.jpg"), return_tensors="pt")
tokens = AutoModel.from_pretrained("FOLDER")(**picture).last_hidden_state
"""
    files = {
        "config.json": json.dumps(config, indent=2) + "\n",
        "preprocessor_config.json": json.dumps(processor, indent=2) + "\n",
        "README.md": card_text(model, card or Card(), library="transformers", use=use),
    }
    return _write_folder(Path(to), files, weights)


def own_facts(model: Model, card: Card) -> dict[str, Any]:
    """What config.json of transformers has no place for: whose weights these are, and how inputs must be prepared."""
    kept = {k: model.config[k] for k in ("method", "data", "step", "version") if k in model.config}
    return kept | {"weights": model.weights, "licence": card.licence, "preprocess": model.preprocess.as_dict()}


def _hf_clips(model: Model, to: str | Path, card: Card) -> Path:
    p = model.preprocess
    if not isinstance(p, ClipPreprocess):
        raise ValueError("model must know how clips are prepared to be exported, got the preprocessing of pictures.")
    weights, config = hf_vjepa2(model)
    config["openjepa"] = own_facts(model, card)
    use = f"""
import torch
from transformers import AutoModel
clip = torch.zeros(1, {p.frames}, {p.channels}, {p.size}, {p.size})  # frames as in video_preprocessor_config.json
tokens = AutoModel.from_pretrained("FOLDER")(clip, skip_predictor=True).last_hidden_state
"""
    files = {
        "config.json": json.dumps(config, indent=2) + "\n",
        "video_preprocessor_config.json": json.dumps(hf_video_processor(p, RESAMPLE[p.resample]), indent=2) + "\n",
        "README.md": card_text(model, card, library="transformers", use=use),
    }
    return _write_folder(Path(to), files, weights)


class _Both(nn.Module):
    """pictures or clips -> tokens, pooled: what an ONNX file computes."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder, self.prefix = model.encoder, model.encoder.prefix

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder(pictures)
        return tokens[:, self.prefix :], pool(tokens, self.prefix, "mean")


def export_onnx(model: Model, to: str | Path, *, card: Card | None = None) -> Path:
    """One .onnx file: "pictures" (batch, C, size, size), normalised -> "tokens" (batch, N, D), "pooled" (batch, D).

    Of an encoder of clips the input is "clips" (batch, T, C, size, size). The batch is free, the size is fixed. How
    pictures are prepared, and the facts of `card`, go into the metadata of the file. After writing, the file is run in
    onnxruntime on batches of 1 and 3 where that is installed, and must agree with the encoder. Needs onnx and
    onnxscript: pip install 'openjepa[onnx]'.
    """
    path, p = Path(to), model.preprocess
    if path.suffix != ".onnx":
        raise ValueError(f"to must end in .onnx, got {path}. Write for example encoder.onnx.")
    device = next((x.device for x in model.encoder.parameters()), torch.device("cpu"))
    module = _Both(model).eval()
    name, frames = ("clips", (p.frames,)) if isinstance(p, ClipPreprocess) else ("pictures", ())
    # a batch of 1 would be taken for a constant
    example = torch.zeros(2, *frames, p.channels, p.size, p.size, device=device)
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                module, (example,), dynamo=True, input_names=[name], output_names=["tokens", "pooled"],
                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            )  # fmt: skip
    except ImportError as e:
        raise ValueError(f"ONNX export needs onnx and onnxscript, got {e}. Do pip install 'openjepa[onnx]'.") from None
    facts = card or Card()
    program.model.metadata_props.update(
        {"preprocess": json.dumps(p.as_dict()), "licence": facts.licence, "name": facts.name, "version": code_version()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.draft.onnx")
    try:
        program.save(str(draft))
        _agrees(draft, module, example, name)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _agrees(path: Path, module: nn.Module, example: Tensor, name: str) -> None:
    """Raise when onnxruntime gets other numbers from the file than torch from the module."""
    try:
        import onnxruntime
    except ImportError:
        return
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 3):
        x = torch.randn(batch, *example.shape[1:], generator=generator)
        with torch.no_grad():
            want = [y.cpu() for y in module(x.to(example.device))]
        got = [torch.from_numpy(y) for y in session.run(None, {name: x.numpy()})]
        for a, b in zip(got, want, strict=True):
            if not torch.allclose(a, b, atol=1e-3 * float(b.abs().max()), rtol=1e-3):
                raise RuntimeError(f"the ONNX file differs from the encoder by {float((a - b).abs().max()):.2g}.")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks of torchvision, which nothing here needs, and of its own deprecations."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _write_folder(to: Path, files: Mapping[str, str], weights: Mapping[str, Tensor]) -> Path:
    """All files in a folder beside `to`, which then takes its name; nothing is left behind by a failure."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"to must be a new or empty folder, got {to}, which is not. Name another one.")
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(f".{to.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        # every tensor on its own: the format refuses shared memory
        tensors = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in weights.items()}
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8")
        if to.exists():
            to.rmdir()
        draft.rename(to)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return to
