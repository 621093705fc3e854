"""From a method's tensors to files and back, with every name accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from openjepa.nn.refit import refit
from openjepa.train.checkpoint import Parts, damage, listed, newest_good, read_parts

OWN = "method"  # the file of tensors that belong to the method itself and to none of its children


def split(method: nn.Module, state: Mapping[str, Tensor]) -> Parts:
    """A state by child module: `encoder.blocks.0.w` goes to part `encoder` as `blocks.0.w`.

    >>> net = nn.ModuleDict({"encoder": nn.Linear(2, 1)})
    >>> {part: sorted(tensors) for part, tensors in split(net, net.state_dict()).items()}
    {'encoder': ['bias', 'weight']}
    """
    children = dict(method.named_children())
    if OWN in children:
        raise ValueError(
            f"child modules must not be called {OWN!r}: that file holds the method's own tensors. Rename it."
        )
    parts: Parts = {}
    for name, x in state.items():
        child, _, rest = name.partition(".")
        part, name = (child, rest) if rest and child in children else (OWN, name)
        parts.setdefault(part, {})[name] = x
    return parts


def join(parts: Parts) -> dict[str, Tensor]:
    """What `split` took apart."""
    return {name if part == OWN else f"{part}.{name}": x for part, xs in parts.items() for name, x in xs.items()}


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`. A tensor that is missing, unknown or of another shape raises `ValueError`."""
    own = module.state_dict()
    missing = [n for n in own if n not in state]
    unexpected = [n for n in state if n not in own]
    shapes = [
        f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}"
        for n in own
        if n in state and own[n].shape != state[n].shape
    ]
    wrong = [f"{what}: {some(names)}" for what, names in _wrong(missing, unexpected, shapes) if names]
    if wrong:
        raise ValueError(
            f"{source} must fit the model tensor by tensor, got {'; '.join(wrong)}. "
            "Build the model with the settings in the checkpoint's config.json."
        )
    module.load_state_dict(dict(state), strict=True)


def _wrong(missing: list[str], unexpected: list[str], shapes: list[str]) -> Iterable[tuple[str, list[str]]]:
    return ("missing", missing), ("unexpected", unexpected), ("other shapes", shapes)


def some(names: list[str]) -> str:
    """At most five names, then how many more.

    >>> some(list("abcdefg"))
    'a, b, c, d, e and 2 more'
    """
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def load_initial(method: nn.Module, path: str | Path) -> list[str]:
    """Start `method` from other weights: nothing but weights is taken. Returns the children that were loaded.

    A run folder stands for its newest whole checkpoint. A checkpoint folder gives every child whose name it has a file
    for; the others stay as they are. A safetensors file goes to the child of its name when that is not an encoder or
    teacher, else to the encoder, and to the teacher too where there is one, so that both start equal.

    What is loaded must fit tensor by tensor; tables of positions that were made for clips or pictures of another size
    are interpolated.
    """
    path = Path(path)
    children = dict(method.named_children())
    if path.is_file():
        parts = parts_of_file(path, children)
    elif path.is_dir():
        parts = {part: x for part, x in read_parts(checkpoint_in(path)).items() if part in children}
    else:
        raise ValueError(f"init_from must be a run folder, a checkpoint folder or a .safetensors file, got {path}.")
    if not parts:
        raise ValueError(f"init_from must hold weights for one of {some(list(children))}, got none in {path}.")
    for part, state in parts.items():
        load_strict(children[part], refit(state, children[part]), f"init_from {path} ({part})")
    return list(parts)


def parts_of_file(path: Path, children: Mapping[str, nn.Module]) -> Parts:
    try:
        state = load_file(path)
    except SafetensorError as e:
        raise ValueError(f"init_from must be a readable .safetensors file, got {path} ({e}).") from None
    if path.stem in children and path.stem not in ("encoder", "teacher"):
        return {path.stem: state}
    return {part: state for part in ("encoder", "teacher") if part in children}


def checkpoint_in(path: Path) -> Path:
    """`path` itself when it is a checkpoint folder, or the newest whole checkpoint of a run folder."""
    if not (path / "checkpoints").is_dir():
        if (path / "files.json").exists() and (reason := damage(path)):
            raise ValueError(f"checkpoint {path} must be whole, got damage: {reason}. Use an older one.")
        return path
    found = newest_good(path / "checkpoints") if listed(path / "checkpoints") else None
    if found is None:
        raise ValueError(f"{path} must hold a checkpoint, got none. Train for longer, or check the path.")
    return found
