"""Opening what was trained: a run folder, one of its checkpoints, an exported folder, or one of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from openjepa.config import parse
from openjepa.interop.files import check_sealed, read_json, read_weights
from openjepa.interop.layouts.loading import load_layout
from openjepa.interop.layouts.record import Asked
from openjepa.interop.model import Model
from openjepa.interop.preprocess import ClipPreprocess, Preprocess
from openjepa.nn import Encoder, EncoderConfig, build_clip_encoder, build_encoder, wrap

FORMATS = ("openjepa/1",)
TRANSFORMERS = ("ijepa", "vjepa2")  # model types of transformers that have a layout
Weights = Literal["auto", "teacher", "encoder"]


def load(
    path: str | Path,
    *,
    weights: Weights = "auto",
    encoder: nn.Module | None = None,
    worlds: bool = False,
    family: str | None = None,
    heads: Mapping[str, int] | int | None = None,
    depth: Mapping[str, int] | int | None = None,
    size: int | None = None,
    frames: int | None = None,
    classifier: str | Path | None = None,
) -> Model:
    """The encoder that is saved at `path`, ready to use, with all that the file says of it.

    path      a run folder (its newest checkpoint), a checkpoint folder, an exported folder, or the weights file inside
              one of these; or what others saved: a file of I-JEPA, V-JEPA, V-JEPA 2, 2.1 or 2-AC, a folder of
              transformers' I-JEPA or V-JEPA 2, LeWM. What it is is told by its content (`layouts.LAYOUTS`)
    weights   "auto" takes the teacher where there is one, as the I-JEPA paper evaluates it, else the encoder
    encoder   the network, when a run trained one of the user's own that its settings cannot build again
    worlds    take the encoder out of a world model that sees pictures too: of one frame, without the head that makes z

    For checkpoints of others, where the file does not tell or is not believed:

    family      name of the layout
    heads       attention heads, of the encoder or by part: shapes do not tell them for unpublished widths
    depth       blocks, of the encoder or by part, for a published width trained with fewer blocks than published
    size        side of the pictures, frames  of the clips; by default as published
    classifier  file of an attentive classifier that was trained on this encoder

    Nothing is guessed and nothing skipped: every tensor of the file must have its place, and every place its tensor.
    Raises `ValueError` in one sentence for anything else. Files that hold Python code are refused, not run.
    """
    if weights not in ("auto", "teacher", "encoder"):
        raise ValueError(f"weights must be 'auto', 'teacher' or 'encoder', got {weights!r}.")
    where = foreign(Path(path))
    if where is not None:
        asked = Asked(weights, by_part(heads), by_part(depth), size, frames)
        return load_layout(where, asked, family=family, classifier=None if classifier is None else Path(classifier))
    told = {"family": family, "heads": heads, "depth": depth, "size": size, "frames": frames, "classifier": classifier}
    given = [name for name, value in told.items() if value is not None]
    if given:
        raise ValueError(f"{given[0]} must be left out for a checkpoint of openjepa, which says it itself, got {path}.")
    return _own(Path(path), weights, encoder, worlds)


def by_part(value: Mapping[str, int] | int | None) -> Mapping[str, int]:
    """A number for the encoder, or numbers by part."""
    return {} if value is None else {"encoder": value} if isinstance(value, int) else dict(value)


def _own(path: Path, weights: Weights, encoder: nn.Module | None, worlds: bool) -> Model:
    """A checkpoint in our own format."""
    folder, file = locate(path)
    config = read_json(folder / "config.json")
    require_format(config, folder)
    file = file or choose(folder, weights)
    check_sealed(folder, "config.json")
    check_sealed(folder, file.name)
    prepared = _group(config, "preprocess", folder)
    if prepared.get("kind") == "windows":
        preprocess = of_frames(prepared, folder, worlds)
    else:
        kind = ClipPreprocess if prepared.get("kind") == "clips" else Preprocess
        preprocess = kind.from_dict(prepared, str(folder / "config.json"))
    network = build(config, preprocess, folder, encoder)
    fill(network, read_weights(file), str(file))
    which = file.stem if file.stem != "model" else str(config.get("weights", "encoder"))
    licence = config.get("licence")
    return Model(network.eval(), preprocess, config, which, file, licence=None if licence is None else str(licence))


def of_frames(prepared: Mapping[str, Any], folder: Path, worlds: bool) -> Preprocess:
    """How a world model saw single frames: as they are, in the channels that the world has."""
    if not worlds:
        raise ValueError(
            f"{folder} must be an encoder of pictures, got a world model. Do openjepa look or plan with it."
        )
    shape = prepared.get("obs_shape", ())
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(
            f"{folder} must be a world model that sees square pictures, got observations {tuple(shape)}. "
            "Take one that was trained on pictures."
        )
    return Preprocess(shape[1], shape[0], tuple(prepared["obs_mean"]), tuple(prepared["obs_std"]))


def foreign(path: Path) -> Path | None:
    """What to open as a checkpoint of others: a file of weights without our config.json, or a folder of transformers.

    None for what is ours, or should be.
    """
    beside = path if path.is_dir() else path.parent
    config = read_json(beside / "config.json") if (beside / "config.json").is_file() else None
    theirs = config is not None and "format" not in config and (
        config.get("model_type") in TRANSFORMERS or "_target_" in config or {"encoder", "predictor"} <= set(config)
    )  # fmt: skip
    if path.is_file() and path.name != "config.json":
        return path if config is None or theirs else None
    return beside if theirs else None


def locate(path: Path) -> tuple[Path, Path | None]:
    """The folder with config.json, and the weights file if `path` names one."""
    if path.is_file():
        return path.parent, None if path.name == "config.json" else path
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
        if isinstance(preprocess, ClipPreprocess):
            return build_clip_encoder(cfg, size=preprocess.size, channels=preprocess.channels, frames=preprocess.frames)
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
