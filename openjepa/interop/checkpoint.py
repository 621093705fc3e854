"""Opening what was trained: a run folder, one of its checkpoints, an exported folder, or one of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from openjepa.config import parse
from openjepa.interop.files import State, check_sealed, read_json, read_weights
from openjepa.interop.hf import from_hf_ijepa
from openjepa.interop.model import Model
from openjepa.interop.preprocess import Preprocess
from openjepa.nn import Encoder, EncoderConfig, build_encoder, wrap
from openjepa.nn.vit import Size, ViT

FORMATS = ("openjepa/1",)
Weights = Literal["auto", "teacher", "encoder"]


def load(path: str | Path, *, weights: Weights = "auto", encoder: nn.Module | None = None) -> Model:
    """The encoder that is saved at `path`, ready to use.

    path      a run folder (its newest checkpoint), a checkpoint folder, an exported folder, a folder in the layout of
              transformers' IJepaModel, or the weights file inside one of these. What it is is told by its content
    weights   "auto" takes the teacher where there is one, as the I-JEPA paper evaluates it, else the encoder
    encoder   the network, when a run trained one of the user's own that its settings cannot build again

    Nothing is guessed and nothing skipped: every tensor of the file must have its place, and every place its tensor.
    Raises `ValueError` in one sentence for anything else. Files that hold Python code are refused, not run.
    """
    if weights not in ("auto", "teacher", "encoder"):
        raise ValueError(f"weights must be 'auto', 'teacher' or 'encoder', got {weights!r}.")
    folder, file = locate(Path(path))
    config = read_json(folder / "config.json")
    if config.get("model_type") == "ijepa":
        return _from_transformers(folder, file, config)
    require_format(config, folder)
    file = file or choose(folder, weights)
    check_sealed(folder, "config.json")
    check_sealed(folder, file.name)
    prepared = _group(config, "preprocess", folder)
    if prepared.get("kind") == "windows":
        raise ValueError(
            f"{folder} must be an encoder of pictures, got a world model. Do openjepa look or plan with it."
        )
    preprocess = Preprocess.from_dict(prepared, str(folder / "config.json"))
    network = build(config, preprocess, folder, encoder)
    fill(network, read_weights(file), str(file))
    which = file.stem if file.stem != "model" else str(config.get("weights", "encoder"))
    return Model(network.eval(), preprocess, config, which, file)


def locate(path: Path) -> tuple[Path, Path | None]:
    """The folder with config.json, and the weights file if `path` names one."""
    if path.is_file():
        if path.name == "config.json":
            return path.parent, None
        if not (path.parent / "config.json").is_file():
            read_weights(path)  # says what is wrong with the file itself, if anything is
            raise ValueError(
                f"{path} must lie beside its config.json, got none. Load the folder it came from, or give the weights "
                "to training with init_from."
            )
        return path.parent, path
    if not path.is_dir():
        raise ValueError(f"path must be a run, checkpoint or exported folder, got {path}, which is not there.")
    if (path / "checkpoints").is_dir():
        return newest(path / "checkpoints"), None
    if (path / "config.json").is_file():
        return path, None
    if any(path.glob("step_*/config.json")):
        return newest(path), None
    if (path / "exported" / "config.json").is_file():
        return path / "exported", None
    raise ValueError(f"{path} must be a run, checkpoint or exported folder, got neither checkpoints nor a config.json.")


def newest(checkpoints: Path) -> Path:
    """What `last` points to, as a link or as a text file; else the highest step."""
    last = checkpoints / "last"
    if last.is_file() and not last.is_symlink():
        last = checkpoints / last.read_text(encoding="utf-8").strip()
    if (last / "config.json").is_file():
        return last.resolve()
    steps = [p for p in checkpoints.glob("step_*") if p.name[5:].isdecimal() and (p / "config.json").is_file()]
    if not steps:
        raise ValueError(f"{checkpoints} must hold a checkpoint, got none. Train for longer, or check the path.")
    return max(steps, key=lambda p: int(p.name[5:]))


def choose(folder: Path, weights: str) -> Path:
    """The weights file of a folder that `weights` asks for."""
    names = {"auto": ("teacher", "encoder", "model"), "teacher": ("teacher",), "encoder": ("encoder", "model")}[weights]
    for name in names:
        if (folder / f"{name}.safetensors").is_file():
            return folder / f"{name}.safetensors"
    there = sorted(p.name for p in folder.glob("*.safetensors"))
    raise ValueError(
        f"{folder} must hold {' or '.join(f'{name}.safetensors' for name in names)}, got {there or 'no weights'}. "
        "Use weights='auto', or another checkpoint."
    )


def build(config: Mapping[str, Any], preprocess: Preprocess, folder: Path, own: nn.Module | None) -> Encoder:
    """The network that the weights belong to, with weights still to be filled in. No global randomness is used up."""
    with torch.random.fork_rng(devices=[]):
        if own is not None:
            return wrap(own, size=preprocess.size, channels=preprocess.channels)
        cfg = parse(EncoderConfig, _group(config, "encoder", folder) | {"pretrained": False})
        return build_encoder(cfg, size=preprocess.size, channels=preprocess.channels)


def fill(network: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Copy `state` into `network`; one `ValueError` names all that is missing, unexpected or of another kind."""
    own = network.state_dict()
    problems = {
        "missing": [n for n in own if n not in state],
        "unexpected": [n for n in state if n not in own],
        "other shape": [
            f"{n} {tuple(state[n].shape)} for {tuple(x.shape)}"
            for n, x in own.items()
            if isinstance(state.get(n), Tensor) and state[n].shape != x.shape
        ],
        "other type": [
            f"{n} {state[n].dtype if isinstance(state[n], Tensor) else type(state[n]).__name__}"
            for n, x in own.items()
            if n in state
            and (not isinstance(state[n], Tensor) or state[n].is_floating_point() != x.is_floating_point())
        ],
    }
    found = [f"{what}: {some(names)}" for what, names in problems.items() if names]
    if found:
        raise ValueError(
            f"{source} must fit the network tensor by tensor, got {'; '.join(found)}. The settings in config.json and "
            "the weights belong to different networks."
        )
    bad = [n for n, x in state.items() if not bool(x.isfinite().all())]
    if bad:
        raise ValueError(f"{source} must hold finite numbers, got nan or inf in {some(bad)}. Use an older checkpoint.")
    network.load_state_dict({n: x.to(own[n].dtype) for n, x in state.items()}, strict=True)


def some(names: list[str]) -> str:
    """At most five names, then how many more.

    >>> some(list("abcdefg"))
    'a, b, c, d, e and 2 more'
    """
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def require_format(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse folders of other programs, and of a later version of this one."""
    got = config.get("format")
    if got in FORMATS:
        return
    if isinstance(got, str) and got.startswith("openjepa/"):
        raise ValueError(f"{folder} must be of format {' or '.join(FORMATS)}, got {got}. Update openjepa.")
    what = f"a {config['model_type']!r} model of transformers" if "model_type" in config else "no format in config.json"
    advice = "Use it as encoder hf/NAME in training." if "model_type" in config else "Is it a checkpoint of openjepa?"
    raise ValueError(f"{folder} must be a checkpoint of openjepa or an IJepaModel, got {what}. {advice}")


def _group(config: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    found = config.get(name)
    if not isinstance(found, dict):
        advice = " Give the network with load(path, encoder=...)." if name == "encoder" else ""
        raise ValueError(f"{folder / 'config.json'} must have a group {name!r}, got {found!r}.{advice}")
    return found


def _from_transformers(folder: Path, file: Path | None, config: Mapping[str, Any]) -> Model:
    """An IJepaModel as our ViT; pictures as in preprocessor_config.json where there is one, else ImageNet's numbers."""
    file = file or choose(folder, "encoder")
    state: State = from_hf_ijepa(read_weights(file))
    try:
        width, depth, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
        shape = Size(width, depth, heads, config["intermediate_size"] / width)
        patch, size, channels = config["patch_size"], config["image_size"], config.get("num_channels", 3)
    except KeyError as e:
        raise ValueError(f"{folder / 'config.json'} must give {e.args[0]} for an IJepaModel, got none.") from None
    with torch.random.fork_rng(devices=[]):
        network = ViT(shape, patch=patch, size=size, channels=channels)
    fill(network, state, str(file))
    told = read_json(folder / "preprocessor_config.json") if (folder / "preprocessor_config.json").is_file() else {}
    mean, std = told.get("image_mean", [0.485, 0.456, 0.406]), told.get("image_std", [0.229, 0.224, 0.225])
    resample = {2: "bilinear", 3: "bicubic"}.get(told.get("resample", 3), "bicubic")
    values = {"size": size, "channels": channels, "mean": mean[:channels], "std": std[:channels], "resample": resample}
    return Model(network.eval(), Preprocess.from_dict(values, str(folder)), dict(config), "encoder", file)
