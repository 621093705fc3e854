"""Location heads and average precision, against scikit-learn and by hand."""

from __future__ import annotations

import pytest
import torch

from openjepa.probe.localise import LocationHead, average_precision, fit_locations


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties: bool):
    metrics = pytest.importorskip("sklearn.metrics")
    g = torch.Generator().manual_seed(0)
    for n in (3, 50, 400):
        scores = torch.randn(n, generator=g)
        scores = (scores * 2).round() if ties else scores
        labels = (torch.rand(n, generator=g) < 0.3).long()
        labels[0] = 1
        want = metrics.average_precision_score(labels.numpy(), scores.numpy())
        assert float(average_precision(scores, labels)) == pytest.approx(want, abs=1e-12)


def test_average_precision_of_rows_and_of_nothing():
    scores = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    found = average_precision(scores, torch.tensor([[0, 0, 1], [0, 0, 1]]))
    assert found.tolist() == [1.0, pytest.approx(1 / 3)]
    assert average_precision(scores[0], torch.zeros(3)).isnan()


def test_a_head_finds_bright_cells_and_pools_larger_maps():
    g = torch.Generator().manual_seed(0)
    cells = (torch.rand(200, 8, 8, generator=g) < 0.05).long()
    maps = torch.randn(200, 4, 16, 16, generator=g) * 0.1
    maps[:, 0] += cells.repeat_interleave(2, 1).repeat_interleave(2, 2)
    head = fit_locations(maps[:150], cells[:150], epochs=60, batch_size=25, lr=1e-2)
    with torch.no_grad():
        scores = head(maps[150:])
    assert scores.shape == (50, 8, 8)
    assert float(average_precision(scores.flatten(), cells[150:].flatten())) > 0.99
    with pytest.raises(ValueError, match="cells must be"):
        fit_locations(maps, cells[:10])
    assert LocationHead(4, cells=4)(maps[:2]).shape == (2, 4, 4)
