"""Latents that are kept: the last ones, each as likely, and drawn the same again."""

from __future__ import annotations

import torch

from openjepa.nn.replay import Replay


def numbered(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows that hold nothing but their own number."""
    n = torch.arange(first, first + count).float()
    return n[:, None, None].expand(-1, 3, 2), -n[:, None, None].expand(-1, 2, 1)


def drawn(memory: Replay, n: int = 4000, seed: int = 0) -> torch.Tensor:
    z, action = memory.draw(n, torch.Generator().manual_seed(seed))
    assert z.shape == (n, 3, 2) and torch.equal(action[:, 0, 0], -z[:, 0, 0]), "actions stay with their latents"
    return z[:, 0, 0]


def test_only_what_was_put_is_drawn_and_the_oldest_goes_first() -> None:
    memory = Replay(10, steps=3, dim=2, action=1)
    for first, left in ((0, range(4)), (4, range(8)), (8, range(2, 12)), (12, range(6, 16))):
        memory.put(*numbered(first, 4))
        assert set(drawn(memory).tolist()) == set(map(float, left))
    memory.put(*numbered(16, 25))  # more than it holds
    assert set(drawn(memory).tolist()) == set(map(float, range(31, 41)))
    counts = torch.bincount(drawn(memory, 40_000).long() - 31)
    assert (counts - 4000).abs().max() < 300  # five standard deviations of a binomial count


def test_saved_it_draws_the_same_again() -> None:
    memory, other = (Replay(6, steps=3, dim=2, action=1) for _ in range(2))
    memory.put(*numbered(0, 9))
    other.load_state_dict(memory.state_dict())
    for m in (memory, other):
        m.put(*numbered(9, 2))
    assert torch.equal(drawn(memory, 50, 3), drawn(other, 50, 3)) and not torch.equal(
        drawn(memory), drawn(memory, seed=1)
    )


def test_latents_are_kept_without_their_history() -> None:
    memory, z = Replay(6, steps=3, dim=2, action=1), torch.ones(2, 3, 2, requires_grad=True)
    memory.put(2 * z, torch.zeros(2, 2, 1))
    assert not memory.z.requires_grad and not memory.draw(3, torch.Generator())[0].requires_grad
