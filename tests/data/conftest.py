import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("OPENJEPA_CACHE", str(tmp_path_factory.mktemp("cache")))


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture with a few hard edges, uint8 (H, W, 3)."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    out = np.zeros((height, width, 3))
    for c in range(3):
        for _ in range(4):
            fy, fx, phase = draw.uniform(1, 9), draw.uniform(1, 9), draw.uniform(0, 6)
            out[..., c] += np.sin(fy * y + fx * x + phase)
    out = (out - out.min()) / (out.max() - out.min()) * 200 + 20
    top, left = draw.integers(0, height // 2), draw.integers(0, width // 2)
    out[top : top + height // 4, left : left + width // 3] = draw.integers(0, 256, 3)
    return out.astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def fill(folder: Path, count: int, size: tuple[int, int] = (24, 24), suffix: str = "png") -> list[str]:
    """`count` different pictures in two class folders; their relative names."""
    names = []
    for i in range(count):
        name = f"{'ab'[i % 2]}/{i:03d}.{suffix}"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(*size, seed=i)).save(path)
        names.append(name)
    return sorted(names)
