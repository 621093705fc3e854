"""The report: complete, self-contained, and honest about what is missing."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from openjepa.app.charts import Axis, Series, chart, short, spark, ticks
from openjepa.app.gallery import png
from openjepa.app.report import Neighbours, ReportInputs, page, read_metrics, read_run, report
from openjepa.app.sections import POINTS, duration
from openjepa.probe.pictures import mask_overlay, nearest, pca_maps, show
from openjepa.probe.verdict import Verdict

VOID = {"meta", "img", "br", "line", "circle", "polyline", "link"}


class Balanced(HTMLParser):
    """Raises when tags do not close in order; collects what the page refers to."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def parsed(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    return parser


def rows(n=30):
    out = []
    for i in range(n):
        row = {"step": 10 * i, "progress": i / n, "time": 1.5 * i, "loss": 1 / (1 + i), "lr": 1e-3, "grad_norm": 1.0}
        row |= {"terms/predict": 0.5, "terms/sigreg": 3.0, "images_per_s": 900.0}
        row |= {"health/spread": 0.3 + 0.01 * i, "health/rank": 10.0 + i, "health/knn": 0.5, "health/std": 0.3}
        row |= {f"spectrum/{r}": 0.3 / r for r in (1, 2, 4, 8)}
        out.append(row)
    return out


def pictures(n=4, size=8):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8)


def full() -> ReportInputs:
    shown = pictures()
    grid = torch.arange(16).expand(4, -1)
    return ReportInputs(
        title="run <a> & b",
        history=rows(),
        config={"method": {"name": "ijepa", "encoder": {"name": "vit_micro/2"}}, "data": {"path": "digits"}},
        env={"python": "3.11"},
        folder="runs/a",
        pictures=shown,
        feature_maps=pca_maps(torch.randn(4, 16, 5), (4, 4), size=8),
        masks=mask_overlay(shown, grid[:, :6], grid[:, 8:12].unsqueeze(1), (4, 4)),
        views=[pictures(8).unflatten(0, (2, 4))],
        neighbours=Neighbours(
            shown[:2], pictures(6).unflatten(0, (2, 3)), torch.rand(2, 3), ["x", "y"], [["x"] * 3] * 2
        ),
        probes={"digits": {"scores": [{"name": "linear", "accuracy": 0.9, "low": 0.88, "high": 0.92}]}},
        files=[("config.yaml", 1234)],
        beside=[
            ReportInputs("other", rows(), verdict=Verdict("collapsed", ["Spread is 0."], ["Raise `method.lam`."], 40))
        ],
    )


def test_full_page_is_whole_and_asks_the_network_for_nothing():
    text = page(full())
    parser = parsed(text)
    assert parser.links and all(link.startswith("data:image/png;base64,") for link in parser.links)
    assert "<script" not in text and "@import" not in text and "url(" not in text and "http" not in text
    for wanted in ("Healthy", "Collapsed", "Side by side", "Spectrum", "Nearest neighbours", "90.0%", "88.0% to 92.0%"):
        assert wanted.lower() in text.lower()
    assert "run &lt;a&gt; &amp; b" in text and "<a>" not in text
    assert "First seen at step 40" in text and "<code>method.lam</code>" in text
    assert "missing" not in text.split("</style>")[1]


def test_empty_page_names_what_is_missing_and_how_to_make_it():
    text = page(ReportInputs("empty", history=[], folder="runs/x"))
    parsed(text)
    for command in ("openjepa train", "openjepa look runs/x", "openjepa probe runs/x"):
        assert command in text
    assert "too early to say" in text


@pytest.mark.parametrize("part", ["pictures", "feature_maps", "masks", "neighbours", "probes", "config", "env"])
def test_any_part_may_be_missing(part):
    from dataclasses import fields, replace

    default = {"probes": {}, "config": {}, "env": {}}.get(part)
    assert part in {f.name for f in fields(ReportInputs)}
    parsed(page(replace(full(), **{part: default})))


def test_a_history_of_nothing_but_nan_still_gives_a_page():
    text = page(ReportInputs("nan", history=[{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf")}]))
    parsed(text)
    assert "diverging" in text.lower()


def test_report_writes_the_file_and_leaves_no_other(tmp_path):
    path = report(tmp_path / "deep" / "r.html", full())
    assert path.read_text().startswith("<!doctype html>")
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]
    assert path.stat().st_size < 1_000_000


def test_read_run_takes_what_is_there(tmp_path):
    (tmp_path / "config.yaml").write_text("method: {name: lejepa}\ndata: {path: digits}\n")
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(r) for r in rows(5)) + '\n{"step": 50, "lo')
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "digits.json").write_text(
        '{"scores": [{"name": "knn", "accuracy": 0.5, "low": 0.4, "high": 0.6}]}'
    )
    inputs = read_run(tmp_path)
    assert inputs.title == tmp_path.name and inputs.config["method"]["name"] == "lejepa" and inputs.env == {}
    assert [r["step"] for r in inputs.history] == [0, 10, 20, 30, 40]
    assert "digits" in inputs.probes and ("config.yaml", 44) in inputs.files
    text = page(inputs)
    assert "50.0%" in text and "40.0% to 60.0%" in text


def test_read_run_and_metrics_refuse_in_words(tmp_path):
    with pytest.raises(ValueError, match="run must be a folder"):
        read_run(tmp_path)
    bad = tmp_path / "metrics.jsonl"
    bad.write_text('nonsense\n{"step": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_metrics(bad)
    bad.write_text('{"step": 2, "loss": 1}\n{"step": 1}\n{"step": 2, "loss": 3}\n')
    assert read_metrics(bad) == [{"step": 1}, {"step": 2, "loss": 3}]  # a resumed run repeats steps: the latest counts
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_chart_draws_gaps_logs_and_references():
    svg = chart([Series("a", [0, 1, 2, 3], [1, float("nan"), 3, 4])], title="t")
    assert svg.count("<path") == 2  # the gap splits the line
    assert chart([Series("a", [1, 2], [0, -1])], title="t", y=Axis(log=True)) == ""
    assert "stroke-dasharray" in chart([Series("a", [0, 1], [1, 2], dashed=True)], title="t")
    assert "<svg" in chart([Series("a", [5], [3])], title="one point")
    for n in re.findall(r'd="M([^"]+)"', chart([Series("a", [0, 1e6], [1e-9, 1e9])], title="t", y=Axis(log=True))):
        x = [float(v) for v in n.replace("L", " ").split()]
        assert all(0 <= v <= 420 for v in x)


def test_long_runs_are_thinned():
    text = page(ReportInputs("long", history=[{"step": i, "loss": 1.0 + i % 7} for i in range(20_000)]))
    assert len(text) < 60_000 + 30 * POINTS


def test_small_things():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and ticks(3, 3) == [3]
    assert spark([1]) == "" and spark([1, float("nan"), 2]).startswith("<svg")
    assert short(float("inf")) == "inf" and short(-0.5) == "-0.5"
    assert duration(0) == "0 s"


def test_png_keeps_the_pixels():
    image = pictures(1)[0]
    raw = base64.b64decode(png(image).split(",")[1])
    back = Image.open(io.BytesIO(raw)).convert("RGB")
    times = back.width // 8
    assert times == 12 and back.getpixel((3 * times, 5 * times)) == tuple(image[:, 5, 3].tolist())


# ------------------------------------------------------------------------------------- probe.pictures, used only here
def test_pca_maps_colour_by_content_and_stay_grey_without_any():
    g = torch.Generator().manual_seed(0)
    side = (torch.arange(16) % 4 < 2).float()
    tokens = torch.randn(1, 1, 6, generator=g) * (2 * side - 1)[None, :, None] + 0.01 * torch.randn(
        3, 16, 6, generator=g
    )
    maps = pca_maps(tokens, (4, 4)).float()
    left, right = maps[..., :2], maps[..., 2:]
    assert (left[:, 0].mean() - right[:, 0].mean()).abs() > 200
    assert pca_maps(torch.ones(2, 16, 6), (4, 4)).unique().tolist() == [128]
    assert pca_maps(torch.randn(2, 16, 2), (4, 4)).shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="rows \\* columns"):
        pca_maps(torch.ones(2, 17, 6), (4, 4))


def test_nearest_ignores_the_common_part_and_itself():
    z = torch.tensor([[1.0, 0.0], [0.9, 0.2], [-1.0, 0.1], [-0.9, 0.0], [0.0, 1.0]]) + 100
    index, similarity = nearest(z, torch.tensor([0, 2]), k=2)
    assert index[0, 0] == 1 and index[1, 0] == 3
    assert (similarity[:, 0] >= similarity[:, 1]).all() and similarity.max() <= 1 + 1e-5
    with pytest.raises(ValueError, match="k must be"):
        nearest(z, torch.tensor([0]), k=5)


def test_show_undoes_the_normalisation():
    x = torch.rand(2, 3, 4, 4)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    back = show((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1), mean, std)
    assert (back.float() / 255 - x).abs().max() <= 0.5 / 255 + 1e-4


def test_mask_overlay_shows_kept_patches_unchanged():
    image = pictures(1)
    seen, asked = mask_overlay(image, torch.tensor([[5]]), torch.tensor([[[15]]]), (4, 4))
    assert torch.equal(seen[..., 2:4, 2:4], image[..., 2:4, 2:4])
    assert (seen[..., :2, :2].float() - 128).abs().max() < 20
    assert not torch.equal(asked[..., 6:, 6:], image[..., 6:, 6:])
