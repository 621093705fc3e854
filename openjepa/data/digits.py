"""scikit-learn's handwritten digits: 1,797 pictures of 8x8, built in, no download."""

from __future__ import annotations

import numpy as np

from openjepa.data.arrays import found_arrays
from openjepa.data.config import DataConfig
from openjepa.data.picture import to_channels
from openjepa.data.source import Found

TEST_SHARE = 0.25


def open_digits(cfg: DataConfig) -> Found:
    """ "digits": grey 0..16 scaled to 0..255. `split` is train (1,347) or test (450); without it, all 1,797.

    The split is stratified by class and fixed: it does not depend on the seed of the run.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError('"digits" needs scikit-learn, got none. Do `pip install "openjepa[eval]"`.') from None
    data = load_digits()
    grey = np.floor(data.images * (255 / 16) + 0.5).astype(np.uint8)[..., None]
    labels = data.target.astype(np.int64)
    if cfg.split is not None:
        chosen = split_indices(labels, cfg.split)
        grey, labels = grey[chosen], labels[chosen]
    arrays = np.ascontiguousarray(to_channels(grey, cfg.channels).transpose(0, 3, 1, 2))
    return found_arrays("digits", "digits" if cfg.split is None else f"digits ({cfg.split})", arrays, labels)


def split_indices(labels: np.ndarray, split: str) -> np.ndarray:
    """Sorted positions of a stratified split, a quarter of each class for the test, drawn with seed 0."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test for digits, got {split!r}.")
    draw = np.random.default_rng(0)
    # Sorted by class with ties drawn at random, every fourth picture is a test picture: 450 of 1,797, stratified.
    mixed = draw.permutation(len(labels))
    by_class = mixed[np.argsort(labels[mixed], kind="stable")]
    every = round(1 / TEST_SHARE)
    is_test = np.arange(len(labels)) % every == 0
    return np.sort(by_class[is_test if split == "test" else ~is_test])
