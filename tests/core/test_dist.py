"""Two gloo processes must see the values and the gradients of one process on the joined batch."""

import pytest
import torch
import torch.multiprocessing as mp

from openjepa.core import dist
from openjepa.core.spread import covariance, random_directions, sigreg, variance


def test_alone_every_reduction_is_the_identity():
    x = torch.randn(3, 2)
    assert not dist.is_distributed() and dist.rank() == 0 and dist.world_size() == 1
    for reduce in (dist.all_sum, dist.all_mean, dist.gather):
        assert reduce(x) is x


WORLD, ROWS, DIM = 2, 24, 6


def joined() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(WORLD * ROWS, DIM, generator=g)
    weight = torch.randn(DIM, DIM, generator=g) * 0.3 + 0.2 * torch.eye(DIM)
    return x, weight, random_directions(40, DIM, g)


def views(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Two views (V, N, D) that both depend on the one parameter."""
    return torch.stack([x @ weight, (x.sin() + 0.1) @ weight])


def named_losses(unit: torch.Tensor) -> dict:
    return {
        "all_sum": lambda z: (dist.all_sum(z.mean((0, 1))) / dist.world_size()).pow(3).sum(),
        "all_mean": lambda z: dist.all_mean(z.mean((0, 1))).pow(3).sum(),
        "gather": lambda z: dist.gather(z[0]).sort(0).values.cumsum(0).pow(2).mean(),
        "variance": variance,
        "covariance": covariance,
        "epps_pulley": lambda z: sigreg(z, directions=unit),
        "cramer_von_mises": lambda z: sigreg(z, directions=unit, test="cramer_von_mises"),
        "anderson_darling": lambda z: sigreg(z, directions=unit, test="anderson_darling"),
        "moments": lambda z: sigreg(z, directions=unit, test="moments"),
    }


def value_and_gradient(x: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    _, weight, unit = joined()
    weight.requires_grad_()
    loss = named_losses(unit)[name](views(x, weight))
    (grad,) = torch.autograd.grad(loss, weight)
    return loss.detach(), grad


def work(rank: int, rendezvous: str, results) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=WORLD)
    x, _, unit = joined()
    mine = x[rank * ROWS : (rank + 1) * ROWS]
    found = {}
    for name in named_losses(unit):
        value, grad = value_and_gradient(mine, name)
        torch.distributed.all_reduce(grad)  # what DDP does: average over ranks
        found[name] = (value, grad / WORLD)
    if rank == 0:  # with a reduction inside, this would hang
        with dist.alone():
            found["alone"] = (sigreg(views(mine, joined()[1]), directions=unit), torch.tensor(dist.world_size()))
    assert dist.world_size() == WORLD
    before = mine.clone()
    dist.all_sum(mine)
    untouched = torch.equal(mine, before)
    results[rank] = {k: (v.tolist(), g.tolist()) for k, (v, g) in found.items()} | {"untouched": untouched}
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(work, (f"file://{tmp_path_factory.mktemp('group')}/rendezvous", results), nprocs=WORLD)
        return dict(results)


@pytest.mark.parametrize("name", list(named_losses(torch.empty(0))))
def test_two_processes_equal_one(two_processes, name):
    x, _, _ = joined()
    value, grad = value_and_gradient(x, name)
    assert grad.abs().max() > 1e-3  # otherwise the comparison below says nothing
    for rank in range(WORLD):
        theirs, their_grad = map(torch.tensor, two_processes[rank][name])
        torch.testing.assert_close(theirs, value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(their_grad, grad, rtol=1e-4, atol=1e-5)


def test_reductions_leave_their_argument_alone(two_processes):
    assert all(two_processes[rank]["untouched"] for rank in range(WORLD))


def test_one_process_can_measure_its_own_rows_while_the_other_goes_on(two_processes):
    x, weight, unit = joined()
    value, world = two_processes[0]["alone"]
    assert world == 1 and value == pytest.approx(sigreg(views(x[:ROWS], weight), directions=unit).item(), rel=1e-5)
