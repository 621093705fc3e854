"""A film of an episode: what happened on the left, the goal on the right, green once the goal is reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from openjepa.plan.receding import Drive
from openjepa.worlds.base import World

GAP, EDGE = 4, 3  # pixels between the pictures, and around them
GREY, GREEN = np.array([200, 200, 200], np.uint8), np.array([60, 170, 80], np.uint8)


def frames(
    world: World,
    happened: Drive,
    goals: np.ndarray,
    episode: int,
    *,
    size: int = 192,
    shown: np.ndarray | None = None,
    blank: bool = False,
) -> np.ndarray:
    """Frames (T + 1, H, W, 3) uint8 of one episode, the start included, up to the step at which it was over.

    shown  a picture of the goal, (H, W, C) uint8, where there is no state to draw; blank: nothing is known of it
    """
    steps = int(happened.steps[episode])
    states, reached = happened.states[episode, : steps + 1], happened.reached[episode, : steps + 1]
    now = world.draw(states, size)  # (T + 1, size, size, 3)
    if blank:
        goal = np.full_like(now[:1], 255)
    elif shown is not None:
        goal = resized(shown, size)[None]
    else:
        goal = world.draw(goals[episode][None], size)
    goal = np.broadcast_to(goal, now.shape)
    tall, wide = size + 2 * EDGE, 2 * size + 4 * EDGE + GAP
    film = np.empty((len(now), tall, wide, 3), np.uint8)
    film[:] = 255
    half = size + 2 * EDGE
    film[:, :, :half] = np.where(reached[:, None, None, None], GREEN, GREY)
    film[:, :, half + GAP :] = GREY
    film[:, EDGE : EDGE + size, EDGE : EDGE + size] = now
    film[:, EDGE : EDGE + size, half + GAP + EDGE : half + GAP + EDGE + size] = goal
    return film


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """(H, W, C) uint8 as (size, size, 3); of two channels the first is shown."""
    rgb = picture if picture.shape[-1] == 3 else np.repeat(picture[..., :1], 3, -1)
    return np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.NEAREST))


def save_film(film: np.ndarray, path: str | Path, *, rate: float = 15.0, hold: float = 1.0) -> Path:
    """Frames (T, H, W, 3) uint8 as .gif (Pillow) or .mp4 (needs PyAV), written whole or not at all.

    rate  pictures per second; hold: seconds that the last one stays
    """
    path = Path(path)
    if film.ndim != 4 or film.shape[-1] != 3 or film.dtype != np.uint8 or len(film) == 0:
        raise ValueError(f"film must be uint8 (T, H, W, 3) with T >= 1, got {film.dtype} {film.shape}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    if path.suffix == ".gif":
        _gif(film, part, rate, hold)
    elif path.suffix == ".mp4":
        _mp4(film, part, rate, hold)
    else:
        raise ValueError(f"a film must end in .gif or .mp4, got {path.name}. Rename it.")
    part.replace(path)
    return path


def _gif(film: np.ndarray, path: Path, rate: float, hold: float) -> None:
    # One palette for all frames, from the first, middle and last one: colours do not flicker, and the file stays small.
    some = np.concatenate([film[i] for i in (0, len(film) // 2, len(film) - 1)], 0)
    palette = Image.fromarray(some).quantize(128, method=Image.Quantize.MEDIANCUT)
    pictures = [Image.fromarray(x).quantize(palette=palette, dither=Image.Dither.NONE) for x in film]
    each = max(20, round(1000 / rate / 10) * 10)  # milliseconds; GIF counts hundredths, and players slow faster ones
    lasting = [each] * (len(pictures) - 1) + [each + round(1000 * hold)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lasting, loop=0, optimize=False)


def require_codec() -> None:
    """A `ValueError` where no .mp4 can be written."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise ValueError("an .mp4 needs PyAV, and it is not installed. Do pip install av, or write a .gif.") from None


def _mp4(film: np.ndarray, path: Path, rate: float, hold: float) -> None:
    require_codec()
    import av

    film = film[:, : film.shape[1] // 2 * 2, : film.shape[2] // 2 * 2]  # the codec wants even sides
    film = np.concatenate([film, np.repeat(film[-1:], round(rate * hold), 0)])
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=round(rate))
        stream.height, stream.width = film.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20"}
        for x in film:
            box.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(x), format="rgb24")))
        box.mux(stream.encode())
