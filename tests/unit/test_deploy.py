"""The files in `deploy/` name only metrics that `/metrics` has."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/alerts.yml"
DASHBOARD = json.loads((ROOT / "deploy/grafana.json").read_text("utf-8"))

# What the page says of each metric: its kind and labels.
ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", re.MULTILINE)
# Labels and metrics that Prometheus adds to each scrape.
OF_PROMETHEUS = {"up", "instance", "job", "le"}
WORDS = {"sum", "by", "on", "rate", "increase", "avg", "histogram_quantile"}


def series():
    """Returns the labels of every series that there is, by its name."""
    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    found = {}
    for name, kind, labels in ROW.findall(page):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        for suffix in suffixes:
            found[name + suffix] = set(re.findall(r"`(\w+)`", labels))
    return found


SERIES = series()


def alert_expressions():
    """Returns the expressions of the rules, found by their indentation without a YAML library."""
    lines = ALERTS.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("        expr: "):
            text = line.partition("expr: ")[2]
            rest = lines[number + 1 :]
            while text.startswith(">") and rest[0].startswith("          "):
                text = f"{text} {rest.pop(0).strip()}"
            yield text.lstrip("> ")


def dashboard_expressions():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


EXPRESSIONS = [*alert_expressions(), *dashboard_expressions()]


def test_the_files_have_expressions():
    assert len(list(alert_expressions())) == ALERTS.read_text("utf-8").count("- alert:")
    assert len(EXPRESSIONS) > 30


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_name_is_one_that_exists(expression):
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    names = set(re.findall(r"[a-z_]{2,}", bare)) - WORDS - OF_PROMETHEUS
    used = names & SERIES.keys()
    assert used or bare.startswith("up"), expression
    labels = set.union(set(), *(SERIES[name] for name in used))
    assert names - used <= labels, expression


def test_values_of_labels_are_on_the_page():
    page = (ROOT / "docs/metrics.md").read_text("utf-8")
    for expression in EXPRESSIONS:
        for label, values in re.findall(r'(outcome|reason|state)[!=~]+"([^"]*)"', expression):
            for value in values.split("|"):
                assert f"`{value}`" in page, (label, value)


def test_variables_of_the_dashboard_read_what_exists():
    asked = [each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    for query in asked:
        name = re.fullmatch(r"label_values\((\w+), \w+\)", query["query"])
        assert name and name[1] in SERIES, query


def test_panels_have_places_of_their_own():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_takes_the_rules():
    checked = subprocess.run(
        ["promtool", "check", "rules", ALERTS], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
