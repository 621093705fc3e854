"""Models on disk and on the Hugging Face Hub. Nothing is sent or fetched unless one of these functions is called."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openjepa.interop.checkpoint import Weights, load
from openjepa.interop.export import export, export_hf

if TYPE_CHECKING:
    from openjepa.interop.card import Card
    from openjepa.interop.model import Model

WRITERS = {"openjepa": export, "hf": export_hf}
FILES = ("*.json", "*.safetensors", "README.md")  # all that is fetched: no code, no pickles


def save_pretrained(model: Model, folder: str | Path, *, format: str = "openjepa", card: Card | None = None) -> Path:
    """Write weights, settings and a model card to a new or empty folder.

    format  "openjepa", or "hf": the layout of transformers
    """
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}, got {format!r}.")
    return WRITERS[format](model, folder, card=card)


def from_pretrained(name: str | Path, *, revision: str | None = None, weights: Weights = "auto") -> Model:
    """A model from a folder, or from the Hub when there is no such folder and `name` is "owner/name".

    From the Hub only settings, cards and safetensors are fetched, through huggingface_hub and its cache.
    """
    path = Path(name)
    if path.exists():
        if revision is not None:
            raise ValueError(f"revision must be left out for a folder, got {revision!r} for {path}.")
        return load(path, weights=weights)
    owner, slash, rest = str(name).partition("/")
    if not (owner and slash and rest) or "/" in rest or owner in (".", ".."):
        raise ValueError(f"name must be a folder that is there, or owner/name on the Hub, got {name}. Check the path.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(str(name), revision=revision, allow_patterns=list(FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as e:
        why = str(e).splitlines()[0]
        raise ValueError(f"{name} must be there on the Hub, got: {why}. Check name, net and login.") from None
    return load(folder, weights=weights)


def push_to_hub(
    model: Model,
    repo: str,
    *,
    format: str = "openjepa",
    card: Card | None = None,
    private: bool = True,
    message: str = "Upload model",
    api: Any = None,
) -> str:
    """Upload weights, settings and card to the Hub as `repo` ("owner/name"), made when it is not there; its address.

    private  of a repository that has to be made; one that is there stays as it is
    api      a huggingface_hub.HfApi, for another server or token; by default the one of the stored login
    """
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}, got {format!r}.")
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_pretrained(model, Path(scratch) / "model", format=format, card=card)
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    return str(address)
