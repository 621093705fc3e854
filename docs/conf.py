"""Sphinx: markdown pages as they are, and the tables of settings written out from the schema's packaged copy."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from openjepa import __version__  # noqa: E402
from openjepa.app.fields import paragraph, read, table  # noqa: E402

project = "OpenJEPA"
author = "The OpenJEPA authors"
copyright = author
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"OpenJEPA {__version__}"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]


def settings_page() -> str:
    """Every setting with its type, default and meaning."""
    known = read()
    parts = [
        "# Settings",
        "One schema for Python keywords, YAML and `key=value` on the command line. "
        "This page is written from it; `openjepa train METHOD --help` shows the same.",
        "## Every run",
        block(table(known["train"]["fields"])),
    ]
    for name in ("clips", "episodes"):
        about = paragraph(known[name]["about"])
        parts += [
            f"## Data that are {name}",
            "In place of those above.",
            block(f"{about}\n\n{table(known[name]['fields'])}"),
        ]
    for name, method in known["methods"].items():
        parts += [f"## Method {name}", block(paragraph(method["about"]) + "\n\n" + table(method["fields"]))]
    for name, verb in known["verbs"].items():
        parts += [f"## {name}", block(paragraph(verb["about"]) + "\n\n" + table(verb["fields"]))]
    return "\n\n".join(parts) + "\n"


def block(text: str) -> str:
    return f"```text\n{text}\n```"


(HERE / "settings.md").write_text(settings_page(), encoding="utf-8")
