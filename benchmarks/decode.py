"""Clips per processor second and memory: our reader against reading from the start and keeping the wanted frames.

    python -m benchmarks.decode [FOLDER]

The other side is what readers in the manner of decord do when asked for a batch of frames of an unseen file: open it,
decode in order, convert every frame that is wanted. Both sides read the same frames of the same files in the same run,
with one thread, by turns, and are timed in processor seconds; every result is compared, pixel by pixel. FOLDER holds
videos; without it files are written: H.264 of 340x256 with a key frame every 12 and every 250 frames. Memory is the
peak of a process of its own that reads one clip from the end of a long file, less what it held before.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import gc
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch

from benchmarks.record import save
from openjepa.data.clips.opening import VIDEOS
from openjepa.data.clips.video import Outline, outline, read_frames

FRAMES, STRIDE = 16, 4


def written(folder: Path, name: str, gop: int, count: int, seed: int = 0) -> Path:
    """A video with the detail and the motion of a hand-held camera: a textured plane that is panned over."""
    draw = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(512)[:, None, None], np.fft.rfftfreq(700)[None, :, None]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / 700) ** 1.2
    plane = np.fft.irfft2(fall * (draw.normal(size=(512, 351, 3)) + 1j * draw.normal(size=(512, 351, 3))),
                          s=(512, 700), axes=(0, 1))  # fmt: skip
    plane = ((plane - plane.mean()) / plane.std() * 55 + 120).clip(0, 255).astype(np.uint8)
    path = folder / name
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 340, 256, "yuv420p", gop
        for k in range(count):
            y, x = round(128 + 120 * np.sin(k / 37 + seed)), round(180 + 170 * np.sin(k / 53))
            picture = np.ascontiguousarray(plane[y : y + 256, x : x + 340])
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(stream.encode())
    return path


def from_the_start(path: str, numbers: np.ndarray) -> np.ndarray:
    """Frames `numbers`, rising, by decoding everything before them."""
    wanted, found = set(numbers.tolist()), []
    with av.open(path) as box:
        stream = box.streams.video[0]
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(box.decode(stream)):
            if number in wanted:
                found.append(frame.to_ndarray(format="rgb24"))
                if len(found) == len(numbers):
                    break
    return np.stack(found)


def seconds(read, *given) -> tuple[float, np.ndarray]:
    start = time.process_time()
    result = read(*given)
    return time.process_time() - start, result


def ours(path: str, about: Outline, numbers: np.ndarray) -> np.ndarray:
    return read_frames(path, about, numbers).transpose(0, 2, 3, 1)


def measure(paths: list[Path], turns: int) -> dict:
    """Both sides on random clips of every file; the outlines are read once before, as in training."""
    draw = np.random.default_rng(0)
    begun = time.process_time()
    outlines = [outline(str(p)) for p in paths]
    reading = (time.process_time() - begun) / len(paths)
    a, b = [], []
    for turn in range(turns):
        for path, about in zip(paths, outlines, strict=True):
            room = len(about.times) - (FRAMES - 1) * STRIDE
            if room < 1:
                continue
            numbers = draw.integers(room) + STRIDE * np.arange(FRAMES)
            pair = [(ours, str(path), about, numbers), (from_the_start, str(path), numbers)]
            done = [seconds(*p) for p in (pair if turn % 2 else pair[::-1])]
            (fast, mine), (slow, theirs) = done if turn % 2 else done[::-1]
            if not np.array_equal(mine, theirs):
                raise SystemExit(f"{path}: the two sides read different pixels")
            a.append(fast)
            b.append(slow)
    return {
        "files": len(paths),
        "clips": len(a),
        "openjepa_clips_per_cpu_second": round(len(a) / sum(a), 2),
        "from_the_start_clips_per_cpu_second": round(len(b) / sum(b), 2),
        "ratio_of_sums": round(sum(b) / sum(a), 2),
        "median_ratio": round(statistics.median(y / x for x, y in zip(a, b, strict=True)), 2),
        "outline_ms_per_file": round(1e3 * reading, 2),
        "equal_pixels": True,
    }


def peak_mib(how: str, path: Path) -> float:
    """Memory that reading the last clip of a file adds, in a process of its own."""
    code = f"from benchmarks.decode import grown; print(grown({how!r}, {str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def grown(how: str, path: str) -> float:
    about = outline(path)
    first = len(about.times) - FRAMES * STRIDE
    numbers = first + STRIDE * np.arange(FRAMES)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from what importing took
    before = kib("VmRSS")
    if how == "openjepa":
        ours(path, about, numbers)
    else:
        from_the_start(path, numbers)
    return round((kib("VmHWM") - before) / 1024, 1)


def kib(name: str) -> int:
    """A line of this process's memory, as Linux keeps it."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="of videos")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--length", type=int, default=300, help="frames of the files that are written")
    given = parser.parse_args()
    if given.length < FRAMES * STRIDE:
        parser.error(f"--length must be at least {FRAMES * STRIDE}, the frames of a clip, got {given.length}")
    torch.set_num_threads(1)
    results = {"clip": f"{FRAMES} frames, stride {STRIDE}"}
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            "written, key frame every 12": [written(Path(folder), f"a{k}.mp4", 12, given.length, k) for k in range(2)],
            "written, key frame every 250": [
                written(Path(folder), f"b{k}.mp4", 250, given.length, k) for k in range(2)
            ],
        }
        if given.folder:
            real = sorted(p for p in Path(given.folder).iterdir() if p.suffix.lower() in VIDEOS)
            cases = {"real files": real} | cases
        for name, paths in cases.items():
            results[name] = measure(paths, given.turns)
            longest = max(paths, key=lambda p: len(outline(str(p)).times))
            results[name]["peak_mib"] = {how: peak_mib(how, longest) for how in ("openjepa", "from the start")}
            print(f"{name}: {results[name]}", flush=True)
    print(save("decode", results))


if __name__ == "__main__":
    main()
