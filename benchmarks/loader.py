"""Loader images per second against a plain Pillow loop that makes the same views: JPEG photographs, 32x32 in memory.

    python -m benchmarks.loader

Both sides use one thread and no workers, take turns within one run, and are timed in processor seconds, so that other
work on the machine hits both alike; a ratio is the median over the turns. Pictures are generated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance

from benchmarks.record import save
from openjepa.config import View
from openjepa.data import PictureStream, open_source
from openjepa.data.config import DataConfig

JITTER = (0.4, 0.4, 0.2, 0.1)
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
CASES = {
    "photos 500x375: one 224 crop": ("photos", 64, [View(scale=(0.3, 1.0), flip=0.5)]),
    "photos 500x375: 2 crops of 224 and 6 of 98, jitter and grey": (
        "photos", 32, [
            View(count=2, size=224, scale=(0.3, 1.0), flip=0.5, jitter=JITTER, grey=0.2),
            View(count=6, size=98, scale=(0.05, 0.3), flip=0.5, jitter=JITTER, grey=0.2),
        ],
    ),
    "32x32 in memory: one crop": ("small", 256, [View(scale=(0.3, 1.0), flip=0.5)]),
    "32x32 in memory: 4 crops, jitter and grey": (
        "small", 256, [View(count=4, scale=(0.3, 1.0), flip=0.5, jitter=JITTER, grey=0.2)]
    ),
    "32x32 in memory: 2 crops of 32 and 6 of 16, jitter and grey": (
        "small", 256, [
            View(count=2, scale=(0.3, 1.0), flip=0.5, jitter=JITTER, grey=0.2),
            View(count=6, size=16, scale=(0.05, 0.3), flip=0.5, jitter=JITTER, grey=0.2),
        ],
    ),
}  # fmt: skip


def photos(folder: Path, count: int) -> None:
    """JPEG files of 500x375 with the detail of a photograph: noise whose power falls with frequency."""
    draw = np.random.default_rng(0)
    fy, fx = np.fft.fftfreq(375)[:, None, None], np.fft.rfftfreq(500)[None, :, None]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / 500) ** 1.2
    for k in range(count):
        wave = fall * (draw.normal(size=(375, 251, 3)) + 1j * draw.normal(size=(375, 251, 3)))
        x = np.fft.irfft2(wave, s=(375, 500), axes=(0, 1))
        x = (x - x.mean()) / x.std() * 55 + 120
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(folder / f"{k:03d}.jpg", quality=90)


def pillow_view(image: Image.Image, view: View, size: int, draw: random.Random) -> torch.Tensor:
    """One view as the usual chain of separate steps on one picture."""
    width, height = image.size
    area = width * height * draw.uniform(*view.scale)
    aspect = draw.uniform(*view.ratio)
    w, h = min(width, round((area * aspect) ** 0.5)), min(height, round((area / aspect) ** 0.5))
    left, top = draw.randint(0, width - w), draw.randint(0, height - h)
    image = image.crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BICUBIC)
    if draw.random() < view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if any(view.jitter) and draw.random() < view.jitter_p:
        b, c, s, hue = view.jitter
        image = ImageEnhance.Brightness(image).enhance(draw.uniform(1 - b, 1 + b))
        image = ImageEnhance.Contrast(image).enhance(draw.uniform(1 - c, 1 + c))
        image = ImageEnhance.Color(image).enhance(draw.uniform(1 - s, 1 + s))
        turned = np.array(image.convert("HSV"))
        turned[..., 0] += np.uint8(round(255 * draw.uniform(-hue, hue)) % 256)
        image = Image.fromarray(turned, "HSV").convert("RGB")
    if draw.random() < view.grey:
        image = image.convert("L").convert("RGB")
    return torch.from_numpy((np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD).permute(2, 0, 1)


def pillow_batches(items: list, views: list[View], batch: int, size: int) -> Iterator[list[torch.Tensor]]:
    """Batches by a loop over pictures and views; `items` are paths, or pictures already in memory."""
    draw = random.Random(0)
    while True:
        rows = [
            item if isinstance(item, Image.Image) else Image.open(item).convert("RGB")
            for item in draw.sample(items, batch)
        ]
        yield [
            torch.stack([pillow_view(image, v, v.size or size, draw) for _ in range(v.count) for image in rows])
            for v in views
        ]


def seconds(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def measure(path: str, kind: str, batch: int, views: list[View], turns: int) -> dict:
    """Images per processor second of both, and the median ratio of their turns."""
    source = open_source(DataConfig(path=path, size=224 if kind == "photos" else None))
    stream = PictureStream(source, views, batch_size=batch, seed=0, workers=0)
    if kind == "photos":
        items: list = [str(Path(path) / name) for name in source.names]
    else:
        items = [Image.fromarray(a.transpose(1, 2, 0)) for a in source.arrays[:2000]]
    ours, theirs = stream.batches(), pillow_batches(items, views, batch, source.size)
    next(ours), next(theirs)
    pairs = [(seconds(lambda: next(ours)), seconds(lambda: next(theirs))) for _ in range(turns)]
    return {
        "openjepa_images_per_cpu_second": round(batch / statistics.median(a for a, _ in pairs), 1),
        "pillow_images_per_cpu_second": round(batch / statistics.median(b for _, b in pairs), 1),
        "ratio": round(statistics.median(b / a for a, b in pairs), 2),
        "batch": batch,
        "turns": turns,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder), 128)
        for name, (kind, batch, views) in CASES.items():
            path = folder if kind == "photos" else "shapes"
            results[name] = measure(path, kind, batch, views, turns)
            print(f"{name}: {results[name]}", flush=True)
    print(save("loader", results))


if __name__ == "__main__":
    main()
