"""`modelctl bench sweep`: the Pareto front, the recommendation, the measured copy, and --apply."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelctl.bench import apply, chart, copy, reading, sweep, sweep_report
from modelctl.bench.chart import Dot, Scatter
from modelctl.bench.copy import Setting
from modelctl.bench.front import Figure, Point, front, recommended, thinned
from modelctl.bench.load import Cores
from modelctl.bench.results import Machine
from modelctl.bench.sweep_order import Sweep
from modelctl.bench.trial import Trial
from modelctl.errors import CommandError
from modelctl.models import rendering
from modelctl.models import spec as specs
from modelctl.models.repository import Repository, read_config

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
SVG = "{http://www.w3.org/2000/svg}"
NOW = Setting(1, batch=8, delay_us=0)


def repository(tmp_path: Path, name: str) -> Path:
    """Copy a bundled model with its steps."""
    models = tmp_path / "models"
    for source in MODELS.iterdir():
        if source.name == name or source.name.startswith(f"{name}_"):
            shutil.copytree(source, models / source.name)
    return models


def arguments(models: Path, **given: Any) -> Any:
    """Return the options for simple_net, with some given."""
    options = {
        "models": models,
        "backends": ROOT / "backends",
        "state": models.parent / "state",
        "name": "simple_net",
        "apply": False,
        "quick": False,
        "batch_sizes": (1, 16),
        "instances": (1, 2),
        "delays": (0, 500),
        "callers": (1, 8),
        "screen": 1.0,
        "seconds": 3.0,
        "rounds": 2,
        "patience": 0.0,
        "p99_ms": None,
    }
    return SimpleNamespace(**{**options, **given})


def point(batch: int = 8, count: int = 1, delay: int = 0, callers: int = 8) -> Point:
    """Return a point."""
    return Point(Setting(count, batch=batch, delay_us=delay), callers)


# The front


def test_the_front_has_the_unbeaten_points() -> None:
    """More throughput at a higher p99 stays, slower at the same p99 does not; equal points both stay."""
    figures = {
        point(callers=1): Figure(50, 10),
        point(callers=4): Figure(100, 20),
        point(1, callers=4): Figure(90, 20),
        point(16, callers=4): Figure(100, 20),
        point(callers=8): Figure(120, 60),
        point(1, callers=8): Figure(110, 61),
    }
    assert front(figures) == [point(callers=1), point(callers=4), point(16, callers=4), point(callers=8)]


def test_the_front_is_that_of_a_walk_by_throughput() -> None:
    """From the fastest down, a point is on the front if its p99 is below all before it: a second method."""
    chance = random.Random(1)
    for _ in range(50):
        figures = {
            point(callers=number): Figure(chance.uniform(1, 100), chance.uniform(1, 100)) for number in range(1, 40)
        }
        walked, lowest = [], float("inf")
        for one in sorted(figures, key=lambda one: -figures[one].throughput):
            if figures[one].p99 < lowest:
                walked.append(one)
                lowest = figures[one].p99
        assert front(figures) == walked[::-1]


def test_slack_keeps_nearly_equal_points() -> None:
    """With a slack of 5 percent, a point goes only if it is beaten by that much in both figures."""
    figures = {point(callers=8): Figure(100, 20), point(1): Figure(96, 20.5), point(16): Figure(94, 21.1)}
    figures[point(2)] = Figure(94, 19.9)
    assert front(figures, 0.05) == [point(2), point(1), point(callers=8)]


def test_a_long_front_is_thinned_with_both_ends() -> None:
    """At most this many points stay, in their order, including the first and the last."""
    points = [point(callers=number) for number in range(1, 31)]
    kept = thinned(points, 10)
    assert (len(kept), kept[0], kept[-1]) == (10, points[0], points[-1])
    assert kept == sorted(set(kept), key=points.index)
    assert thinned(points[:3], 10) == points[:3]


def test_recommended_is_the_fastest_within_the_bound() -> None:
    """Points beyond the bound do not count; without a p99 within it, nothing is recommended."""
    figures = {point(callers=1): Figure(50, 10), point(callers=4): Figure(100, 20), point(callers=8): Figure(120, 60)}
    assert recommended(figures, 60) == point(callers=8)
    assert recommended(figures, 59) == point(callers=4)
    assert recommended(figures, 19.9) == point(callers=1)
    assert recommended(figures, 9) is None


def test_recommended_is_the_cheapest_of_equally_fast_ones() -> None:
    """Within 5 percent of the fastest, fewer instances win, then less delay, then a smaller batch."""
    figures = {
        point(16, count=2): Figure(100, 20),
        point(16, delay=500): Figure(99, 20),
        point(16): Figure(97, 20),
        point(8): Figure(96, 20),
        point(4): Figure(94, 10),
    }
    assert recommended(figures, 30) == point(8)
    del figures[point(8)]
    assert recommended(figures, 30) == point(16)
    figures[point(16, count=2)] = Figure(110, 20)
    assert recommended(figures, 30) == point(16, count=2)


# What is measured


def test_the_grid_has_the_present_setting_first_and_no_needless_delays(tmp_path: Path) -> None:
    """All combinations follow the configured one; with a batch of one request there is no delay."""
    order = Sweep.of(arguments(repository(tmp_path, "simple_net")))
    assert order.settings == (
        NOW,
        *(Setting(count, batch=1, delay_us=0) for count in (1, 2)),
        *(Setting(count, batch=16, delay_us=delay) for count in (1, 2) for delay in (0, 500)),
    )
    assert len(order.points) == 14
    assert order.command == (
        "modelctl bench sweep simple_net --batch-sizes 1,8,16 --instances 1,2 --delays 0,500 --callers 1,8 "
        "--screen 1 --seconds 3 --rounds 2"
    )


def test_apply_writes_the_measured_configurations(tmp_path: Path) -> None:
    """The measured copy has the configurations that an applied `model.yaml` gives."""
    models = repository(tmp_path, "efficientnet_lite0")
    setting = Setting(3, batch=16, delay_us=700)
    model = Repository(models).models["efficientnet_lite0"]
    copy.write(models, model, "efficientnet_lite0_network", setting, tmp_path / "copy")
    apply.write(models, "efficientnet_lite0", apply.changes(setting, plans=False))
    names = sorted(path.relative_to(models) for path in models.glob("*/config.pbtxt"))
    assert len(names) == 4
    for name in names:
        assert read_config(tmp_path / "copy" / name) == read_config(models / name), name


def test_preferred_sizes_beyond_the_batch_go(tmp_path: Path) -> None:
    """Triton refuses a preferred batch beyond the largest; those within it stay."""
    models = repository(tmp_path, "simple_net")
    path = models / "simple_net" / "config.pbtxt"
    path.write_text(path.read_text().replace("dynamic_batching {", "dynamic_batching { preferred_batch_size: [2, 8]"))
    assert list(read_config(path).dynamic_batching.preferred_batch_size) == [2, 8]
    setting = Setting(1, batch=4, delay_us=0)
    copy.write(models, Repository(models).models["simple_net"], "simple_net", setting, tmp_path / "copy")
    made = read_config(tmp_path / "copy" / "simple_net" / "config.pbtxt")
    assert (made.max_batch_size, list(made.dynamic_batching.preferred_batch_size)) == (4, [2])


def test_a_model_that_lint_refuses_is_not_swept(tmp_path: Path) -> None:
    """An error of lint ends it before a server starts, with the rule and where to read more."""
    models = repository(tmp_path, "simple_net")
    path = models / "simple_net" / "config.pbtxt"
    path.write_text(path.read_text().replace('name: "simple_net"', 'name: "another"'))
    with pytest.raises(CommandError, match=r"simple_net would not serve well as it is, TG\d{3}: .*modelctl lint"):
        Sweep.of(arguments(models))


def test_a_model_without_batches_is_not_swept(tmp_path: Path) -> None:
    """Without batching, there is nothing to sweep."""
    models = repository(tmp_path, "simple_net")
    path = models / "simple_net" / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 0"))
    with pytest.raises(CommandError, match="takes no batches"):
        Sweep.of(arguments(models))


def test_plans_bound_the_batch(tmp_path: Path) -> None:
    """A plan takes no larger batch than it was built for."""
    order = Sweep.of(arguments(repository(tmp_path, "lite_detector"), name="lite_detector"))
    order = replace(order, with_plans=True)
    assert order.with_settings([Setting(2, batch=8, delay_us=0)]).settings == (NOW, Setting(2, batch=8, delay_us=0))
    with pytest.raises(CommandError, match="built for batches of at most 8"):
        order.with_settings([Setting(2, batch=16, delay_us=0)])


def test_the_present_setting_is_that_of_the_served_plan(tmp_path: Path) -> None:
    """Where plans are served, the present number of instances is the plan's."""
    models = repository(tmp_path, "lite_detector")
    path = models / "lite_detector_network" / "configs" / "tensorrt.pbtxt"
    path.write_text(path.read_text().replace("count: 1", "count: 3"))
    order = Sweep.of(arguments(models, name="lite_detector"))
    assert not order.with_plans, "there is no plan"
    assert order.configured.count == 2
    assert replace(order, with_plans=True).configured.count == 3


def test_long_sweeps_are_not_begun(tmp_path: Path) -> None:
    """The time is estimated before anything starts, and compared with --minutes."""
    order = Sweep.of(arguments(repository(tmp_path, "simple_net"), seconds=60.0))
    with pytest.raises(CommandError, match=r"14 points would take about \d+ minutes"):
        sweep._announce(order, 5)
    sweep._announce(order, 60)


@pytest.mark.parametrize("text", ["", "0", "1,1", "9", "1,x", "-1"])
def test_wrong_numbers_are_refused(text: str) -> None:
    """Values to compare are different whole numbers within their bounds."""
    with pytest.raises(CommandError, match="give different ones from 1 to 8"):
        reading.numbers(1, 8)(text)
    with pytest.raises(CommandError, match="is not allowed"):
        reading.number(1, 8)("nan")


def test_points_near_the_front_at_their_best_are_repeated(tmp_path: Path) -> None:
    """One disturbed look drops no point; each is repeated with the configured setting."""
    order = Sweep.of(arguments(repository(tmp_path, "simple_net")))
    screened = {one: [trial(10, 90), trial(10, 90)] for one in order.points}
    screened[Point(NOW, 1)] = [trial(50, 10), trial(40, 12)]
    screened[point(16, callers=8)] = [trial(1, 500), trial(100, 20)]
    screened[point(1, callers=8)] = [trial(95, 21), trial(3, 100)]
    found = sweep.worth_repeating(order, screened)
    assert found[0] == Point(NOW, 1)
    assert set(found) == {Point(NOW, 1), Point(NOW, 8), point(16, callers=8), point(1, callers=8)}


# The report


def trial(throughput: float, p99: float) -> Trial:
    """Return a trial with made-up figures."""
    return Trial(throughput, p99 / 2, p99, Cores(1.5, 0.1, 0.2), 20, 40, 60, None, {}, "ONNX")


def test_the_report_compares_under_the_same_callers(tmp_path: Path) -> None:
    """Ratios are to the configured setting with as many callers; the bound is twice its p99 with the fewest."""
    order = Sweep.of(arguments(repository(tmp_path, "simple_net")))
    least, now, best = Point(NOW, 1), Point(NOW, 8), point(16, 2, 500, 8)
    repeated = {
        least: [trial(50, 10), trial(40, 12)],
        now: [trial(100, 30), trial(80, 40)],
        best: [trial(150, 20), trial(140, 24)],
    }
    screened = {one: trials[:1] for one, trials in repeated.items()} | {point(1): [trial(10, 90)]}
    report, chosen = sweep_report.of(order, screened, repeated, Machine(2, "x86_64", 25, "", "3.11.7"))
    found = json.loads(report.as_json())
    assert chosen == best
    assert found["p99_bound_ms"] == 22
    assert found["ratios"]["throughput recommended/configured"] == pytest.approx(1.625)
    assert found["ranges"]["throughput recommended/configured"] == [1.5, 1.75]
    assert found["ratios"]["p99 batch 16, instances 2, delay 500 us, callers 8/configured"] == pytest.approx(0.6333)
    assert found["recommended"]["block"] == (
        "network:\n  batching: {max_batch_size: 16, queue_delay_us: 500}\n  instances: {count: 2}"
    )
    assert found["front"] == [least.label, best.label]
    assert set(found["screened"]) == {one.label for one in screened}
    row = next(line for line in report.text.splitlines() if line.startswith("| 16 x 2 + 500 us "))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:4] == [
        "8",
        "145 (1.62; 1.50 to 1.75)",
        "22.0 (0.63)",
    ]
    report, chosen = sweep_report.of(
        replace(order, bound=5.0), screened, repeated, Machine(2, "x86_64", 25, "", "3.11.7")
    )
    assert chosen is None
    assert "nothing is recommended" in report.text
    assert json.loads(report.as_json())["recommended"] is None


def test_a_scatter_has_its_points_in_proportion() -> None:
    """Points lie at their figures; a line joins the front in its order, and one point has a ring."""
    line = [Dot(50, 10, "a"), Dot(100, 40, "b<c")]
    tree = ET.fromstring(chart.draw("Front", [Scatter("throughput", "p99, ms", [Dot(50, 40, "d")], line, line[1])]))
    places = {
        one.findtext(f"{SVG}title", "ring").split(":")[0]: (float(one.get("cx", 0)), float(one.get("cy", 0)))
        for one in tree.iter(f"{SVG}circle")
    }
    assert set(places) == {"a", "b<c", "d", "ring"}
    assert places["ring"] == places["b<c"]
    assert places["d"] == (places["a"][0], places["b<c"][1])
    (path,) = [one.get("d") for one in tree.iter(f"{SVG}path") if one.get("class") == "line"]
    assert path == "M" + "L".join("{:.1f} {:.1f}".format(*places[name]) for name in ("a", "b<c"))
    left = places["a"][0] - (places["b<c"][0] - places["a"][0])
    assert left == pytest.approx(chart.LEFT, abs=0.11), "half the throughput is half the way"


# Apply


LAYOUTS = {
    "flow, and a comment behind it": "network:\n  instances: {kind: cpu}  # why\n# then\nlast: 1\n",
    "blocks": "network:\n  # one\n  batching:\n    max_batch_size: 4  # four\n\n  instances:\n    count: 7\nlast: 'x'",
    "four spaces": "network:\n    inputs: {a: [1, 2]}\n    # of the outputs\n    outputs:\n        b:\n            - 3",
    "all in brackets": "{network: {inputs: {a: 1}}, last: 1}",
    "nothing in it": "name: 'x'   # kept\nnetwork:\n  batching: {}",
    "text in lines": "network:\n  why: |\n    one\n      two\n\n# then\nlast: 1\n",
    "Windows": "network:\r\n  batching: {max_batch_size: 4}\r\nlast: 1\r\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_numbers_change(layout: str) -> None:
    """In any layout the requested values are set, and the rest stays in its order."""
    text = LAYOUTS[layout]
    made = apply.changed(text, apply.changes(Setting(3, batch=16, delay_us=250), plans=False))
    network = apply._load(made)["network"]
    assert network["batching"] == {"max_batch_size": 16, "queue_delay_us": 250}
    assert network["instances"]["count"] == 3
    rest = iter(made)
    old = text.replace("max_batch_size: 4", "").replace("count: 7", "")
    assert all(character in rest for character in old), "nothing is lost, and nothing changes its place"
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert [line.partition("#")[2] for line in made.splitlines() if "#" in line] == comments


def test_a_shared_value_is_not_changed() -> None:
    """A number that two keys share is refused, because both would change."""
    text = "other: &one {max_batch_size: 4, queue_delay_us: 0}\nnetwork:\n  batching: *one\n  instances: {count: 1}\n"
    with pytest.raises(CommandError, match="write the block yourself"):
        apply.changed(text, apply.changes(Setting(1, batch=16, delay_us=0), plans=False))


def test_with_plans_the_instances_are_the_plans() -> None:
    """Where TensorRT plans were measured, their number of instances is set, not ONNX Runtime's."""
    text = (MODELS / "lite_detector" / "model.yaml").read_text()
    made = apply.changed(text, apply.changes(Setting(2, batch=4, delay_us=0), plans=True))
    assert "tensorrt: {precision: fp16, instances: 2}" in made
    assert made.count("instances: {count") == text.count("instances: {count")


def test_apply_keeps_comments_and_renders(tmp_path: Path) -> None:
    """Two lines of model.yaml change, the comments stay, and `render --check` passes."""
    models = repository(tmp_path, "minilm_sentiment")
    path = models / "minilm_sentiment" / "model.yaml"
    before = path.read_text().splitlines()
    apply.check(models, "minilm_sentiment")
    apply.write(models, "minilm_sentiment", apply.changes(Setting(3, batch=16, delay_us=500), plans=False))
    after = path.read_text().splitlines()
    assert [line for line in before if line not in after] == ["  instances: {kind: cpu, count: 2}"]
    assert [line for line in after if line not in before] == [
        "  instances: {kind: cpu, count: 3}",
        "  batching: {max_batch_size: 16, queue_delay_us: 500}",
    ]
    assert not rendering.differing(specs.read(path), models)
    config = read_config(models / "minilm_sentiment_network" / "config.pbtxt")
    assert (config.max_batch_size, config.instance_group[0].count) == (16, 3)
    assert config.dynamic_batching.max_queue_delay_microseconds == 500


def test_apply_leaves_a_file_that_it_cannot_render(tmp_path: Path) -> None:
    """When the new values are refused, model.yaml is as it was."""
    models = repository(tmp_path, "simple_net")
    before = (models / "simple_net" / "model.yaml").read_bytes()
    with pytest.raises(CommandError, match="stays as it was"):
        apply.write(models, "simple_net", {("network", "instances", "count"): 65})
    assert (models / "simple_net" / "model.yaml").read_bytes() == before


def test_apply_needs_a_model_yaml_that_is_rendered(tmp_path: Path) -> None:
    """Without it, or with configurations changed by hand, --apply is refused before measuring."""
    models = repository(tmp_path, "simple_net")
    config = models / "simple_net" / "config.pbtxt"
    config.write_text(f"{config.read_text()}# by hand\n")
    with pytest.raises(CommandError, match="run modelctl render simple_net first"):
        Sweep.of(arguments(models, apply=True))
    (models / "simple_net" / "model.yaml").unlink()
    with pytest.raises(CommandError, match=r"no model\.yaml to write to"):
        Sweep.of(arguments(models, apply=True))


# The command


@pytest.mark.server
def test_it_sweeps_a_real_server_and_applies(tmp_path: Path) -> None:
    """A tiny run prints one object, writes its files, sets model.yaml as it recommends, and leaves nothing behind."""
    models, out = repository(tmp_path, "simple_net"), tmp_path / "out"
    words = [sys.executable, "-m", "modelctl", "bench", "sweep", "simple_net", "--apply", "--json"]
    words += ["--batch-sizes", "4", "--instances", "2", "--delays", "100", "--callers", "1,2", "--rounds", "1"]
    words += ["--screen", "0.3", "--seconds", "0.3", "--patience", "0", "--p99-ms", "100000"]
    words += ["--models", str(models), "--state", str(tmp_path / "state"), "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["screened"]) == 4
    assert all(look["throughput"] > 1 and look["p99"] > 0 for looks in found["screened"].values() for look in looks)
    assert {len(looks) for looks in found["screened"].values()} == {2}
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert {f"{metric} recommended/configured" for metric in ("throughput", "p99", "cpu", "memory")} <= set(
        found["ratios"]
    )
    assert set(found["front"]) <= set(found["medians"]) <= set(found["screened"])
    assert sorted(path.name for path in out.iterdir()) == [f"sweep-simple_net{end}" for end in (".json", ".md", ".svg")]
    spec, chosen = specs.read(models / "simple_net" / "model.yaml"), found["recommended"]
    assert spec.network.batching.max_batch_size == chosen["max_batch_size"]
    assert spec.network.batching.queue_delay_us == chosen["queue_delay_us"]
    assert spec.network.instances.count == chosen["instances"]
    assert not rendering.differing(spec, models)
    assert "at most about" in done.stderr.splitlines()[0], "how long it takes is said beforehand"
    assert not (tmp_path / "state" / "models").exists()
