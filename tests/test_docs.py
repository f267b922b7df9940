"""The pages of the user guide: what they show is executed, what they point to is there."""

import re
from pathlib import Path

import pytest

import lstmx

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(params=sorted(path.name for path in DOCS.glob("*.md")))
def page(request):
    return (DOCS / request.param).read_text()


def test_the_examples_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert examples
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "docs", "exec"), names)
    assert lstmx.show_config() in capsys.readouterr().out


def test_what_a_page_points_to_is_there(page):
    targets = [target for target in re.findall(r"\]\(([^)#]+)", page) if "://" not in target]
    assert targets
    for target in targets:
        assert (DOCS / target).exists(), target


def test_the_targets_of_the_page_on_precision_are_those_that_there_are():
    page = (DOCS / "precision.md").read_text()
    rows = re.search(r"\| target \|.*?\n\n", page, flags=re.DOTALL)
    assert rows is not None
    named = {
        name for row in rows[0].strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(lstmx.targets.compiled())
