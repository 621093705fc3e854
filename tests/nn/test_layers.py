"""Batch norm over several processes, drop path, heads."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from openjepa.nn import AttentiveHead, BatchNorm, LinearHead, Projector
from openjepa.nn.layers import Attention, DropPath

SHAPES = [(12, 5), (6, 5, 3, 4), (6, 5, 7)]


def torchs(shape: tuple[int, ...]) -> nn.Module:
    return (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_alone_it_is_torchs(shape):
    ours, theirs = BatchNorm(5), torchs(shape)
    with torch.no_grad():
        ours.weight.uniform_(), ours.bias.uniform_()
    theirs.load_state_dict(ours.state_dict())
    for _ in range(2):
        a, b = (torch.randn(shape) * 3 + 2).requires_grad_(), None
        b = a.detach().clone().requires_grad_()
        ya, yb = ours(a), theirs(b)
        assert torch.equal(ya, yb)
        ya.square().sum().backward()
        yb.square().sum().backward()
        assert torch.equal(a.grad, b.grad)
    assert all(torch.equal(x, y) for x, y in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert torch.equal(ours.eval()(a), theirs.eval()(b))


def test_wrong_width_is_named():
    with pytest.raises(ValueError, match=r"\(N, 5, ...\), got \(3, 4\)"):
        BatchNorm(5)(torch.zeros(3, 4))


def joined(case: str) -> tuple[torch.Tensor, torch.Tensor, list[int], bool]:
    """Input, factors of its output in the loss, rows of each process, and whether there is scale and shift."""
    shape = {"rows": (12, 5), "maps": (12, 5, 3, 4), "uneven": (12, 5, 3, 4), "plain": (12, 5), "far": (12, 5)}[case]
    g = torch.Generator().manual_seed(3)
    far = 1000.0 if case == "far" else 2.0  # a mean far above the spread: squares would lose every digit
    x = torch.randn(shape, generator=g) * torch.linspace(0.5, 3, 12).view(-1, *[1] * (len(shape) - 1)) + far
    return x, torch.randn(shape, generator=g), [9, 3] if case == "uneven" else [6, 6], case != "plain"


def train(bn: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = bn(x)
    ((y + y**3) * weight).sum().backward()
    out = {"y": y.detach(), "dx": x.grad} | {f"d{n}": p.grad for n, p in bn.named_parameters()}
    return out | {k: v.clone().float() for k, v in bn.state_dict().items()}


CASES = ["rows", "maps", "uneven", "plain", "far"]


def work(rank: int, rendezvous: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    found = {}
    for case in CASES:
        x, weight, rows, affine = joined(case)
        bn = BatchNorm(5, affine=affine)
        found[case] = train(bn, x.split(rows)[rank], weight.split(rows)[rank])
        found[case]["eval"] = bn.eval()(x)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    mp.spawn(work, (f"file://{folder}/rendezvous", str(folder)), nprocs=2)
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_the_joined_batch(case, two):
    x, weight, _, affine = joined(case)
    bn = (nn.BatchNorm2d if x.dim() == 4 else nn.BatchNorm1d)(5, affine=affine)
    want, close = train(bn, x, weight), {"atol": 2e-3, "rtol": 1e-3} if case == "far" else {"atol": 1e-4, "rtol": 1e-4}
    a, b = two[0][case], two[1][case]
    for name in ("y", "dx"):  # rows stay where they are
        torch.testing.assert_close(torch.cat([a[name], b[name]]), want[name], **close)
    if affine:
        for name in ("dweight", "dbias"):  # parameters: summed over processes, as the trainer does
            torch.testing.assert_close(a[name] + b[name], want[name], **close)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(a[name], want[name], atol=1e-5, rtol=1e-5)
        assert torch.equal(a[name], b[name])
    torch.testing.assert_close(a["eval"], bn.eval()(x), **close)


def test_drop_path_keeps_the_mean():
    x = torch.ones(4000, 2, 3)
    y = DropPath(0.25)(x)
    assert set(y.unique().tolist()) == {0.0, (x / 0.75).unique().item()}
    assert (y[:, :1, :1] == y).all()  # whole samples
    assert abs(y.mean().item() - 1) < 0.03
    assert torch.equal(DropPath(0.25).eval()(x), x)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        DropPath(1.0)


def test_attention_refuses_uneven_heads():
    with pytest.raises(ValueError, match="width 10 and 3 heads"):
        Attention(10, 3)


def test_projector():
    p = Projector(8, hidden=16, out=4, layers=3)
    maps = [m for m in p.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features, m.bias is None) for m in maps] == [
        (8, 16, True), (16, 16, True), (16, 4, False),
    ]  # fmt: skip
    views = torch.randn(3, 10, 8)
    z = p(views)
    assert z.shape == (3, 10, 4)
    torch.testing.assert_close(z.flatten(0, 1), p(views.flatten(0, 1)))  # one batch of statistics for all views
    z.square().sum().backward()
    assert all(w.grad.abs().sum() > 0 for w in p.parameters())
    assert isinstance(Projector(8, out=4, layers=1).last, nn.Linear) and not len(Projector(8, out=4, layers=1).hidden)
    with pytest.raises(ValueError, match="at least 1"):
        Projector(8, layers=0)


def test_linear_head_does_not_feel_the_scale_of_features():
    head, x = LinearHead(6, classes=3), torch.randn(50, 6)
    torch.testing.assert_close(head(x), head(x * 1000 + 7), atol=1e-3, rtol=1e-3)


def test_attentive_head_can_find_one_token():
    """The label stands in one token at a random place: the mean hides it among noise, attention finds it."""
    g = torch.Generator().manual_seed(0)
    n, tokens, dim = 256, 12, 8
    x = torch.randn(n, tokens, dim, generator=g)
    label, place = torch.randint(2, (n,), generator=g), torch.randint(tokens, (n,), generator=g)
    x[torch.arange(n), place] = torch.zeros(dim)
    x[torch.arange(n), place, 0] = 6.0  # the mark
    x[torch.arange(n), place, 1] = label * 2.0 - 1
    head = AttentiveHead(dim, classes=2, heads=2)
    optimiser = torch.optim.AdamW(head.parameters(), lr=3e-2)
    for _ in range(120):
        optimiser.zero_grad()
        nn.functional.cross_entropy(head(x), label).backward()
        optimiser.step()
    assert (head(x).argmax(1) == label).float().mean() > 0.97
    assert all(p.grad is not None for p in head.parameters())
