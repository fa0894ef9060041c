"""Files of class names, in the forms that people have, give one name per class in the network's order."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelctl.errors import CommandError
from modelctl.sources import labels

TAKEN = {
    "lines.txt": "cat\ndog\nbird\n\n",
    "bom.txt": "\ufeffcat\r\ndog\r\nbird",
    "list.names": "cat\ndog\nbird",
    "blanks.txt": "0 cat\n1 dog\n2 bird\n",
    "commas.txt": "0,cat\n2,bird\n1,dog\n",
    "colons.txt": "0: cat\n1: dog\n2: bird\n",
    "from_one.txt": "1 cat\n2 dog\n3 bird\n",
    "python.txt": "{0: 'cat',\n 1: 'dog',\n 2: \"bird\"}",
    "list.json": '["cat", "dog", "bird"]',
    "numbers.json": '{"0": "cat", "2": "bird", "1": "dog"}',
    "names.json": '{"cat": 0, "bird": 2, "dog": 1}',
    "config.json": '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog", "2": "bird"}}',
    "keras.json": '{"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "bird"]}',
    "coco.json": '{"categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "bird"}, {"id": 2, "name": "dog"}]}',
    "data.yaml": "path: ../d\nnc: 3\nnames: ['cat', 'dog', 'bird']\n",
    "data.yml": "names:\n  0: cat\n  1: dog\n  2: bird\n",
    "list.yaml": "- cat\n- dog\n- bird\n",
    "plain.csv": "cat\ndog\nbird\n",
    "pairs.csv": "0,cat\n1,dog\n2,bird\n",
    "header.csv": "index,name\n1,dog\n0,cat\n2,bird\n",
    "header_of_one.csv": "label\ncat\ndog\nbird\n",
    "wide.csv": "class_id;wnid;name\n0;n01;cat\n1;n02;dog\n2;n03;bird\n",
    "tabs.tsv": "0\tcat\n1\tdog\n2\tbird\n",
}


@pytest.mark.parametrize("name", TAKEN)
def test_every_form_gives_the_same_names(tmp_path: Path, name: str) -> None:
    """Text, CSV, JSON and YAML; numbers decide the order."""
    (tmp_path / name).write_text(TAKEN[name], "utf-8")
    assert labels.read(tmp_path / name) == ["cat", "dog", "bird"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("digits.txt", "0\n1\n2\n", ["0", "1", "2"]),
        ("commas.txt", "tench, Tinca tinca\ngoldfish, Carassius\n", ["tench, Tinca tinca", "goldfish, Carassius"]),
        ("synsets.txt", "n01440764 tench\nn01443537 goldfish\n", ["n01440764 tench", "n01443537 goldfish"]),
        ("counts.txt", "4 door\n2 door\n", ["4 door", "2 door"]),
        ("quoted.csv", '0,"tench, Tinca"\n1,goldfish\n', ["tench, Tinca", "goldfish"]),
    ],
)
def test_names_that_only_look_numbered_are_kept(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    """A line is split only where all lines begin with the numbers of all classes."""
    (tmp_path / name).write_text(text)
    assert labels.read(tmp_path / name) == expected


REFUSED = {
    "gap.txt": ("a\n\nb\n", "have an empty line 2: remove it, or give that class a name", "a\nb\n"),
    "empty.txt": ("\n", "hold no name: give one a class", "a\nb\n"),
    "gap.json": ('{"0": "a", "2": "b"}', "have no name for 1: number every class, from 0", '{"0": "a", "1": "b"}'),
    "twice.json": ('[{"id": 0, "name": "a"}, {"id": 0, "name": "b"}]', "number two classes 0: number each once", None),
    "words.json": ('{"a": "x", "b": "y"}', "have 'a' where a class's number belongs", '{"a": 0, "b": 1}'),
    "nothing.json": ("3", "hold int, not names: give a list, or numbers with names", '["a", "b"]'),
    "nested.json": ("[[1, 2, 3]]", "hold '[1, 2, 3]' for a name: give text", '["a", "b"]'),
    "void.json": ('["a", ""]', "have an empty name for the class 1: give it one", '["a", "b"]'),
    "broken.json": ('{"0"', "are not JSON: ", '{"0": "a", "1": "b"}'),
    "broken.yaml": ("names: [a", "are not YAML: ", "names: [a, b]"),
    "wide.csv": (
        "0,n1,a\n1,n2,b\n",
        "have 3 columns and no header: leave index and name",
        "id,w,name\n0,n1,a\n1,n2,b",
    ),
    "short.csv": (
        "id,name\n0,a\n1\n",
        "have a row without a name: write every row as the first",
        "id,name\n0,a\n1,b\n",
    ),
    "words.csv": ("x,a\ny,b\n", "have 'x' where a class's number belongs", "0,a\n1,b\n"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_the_way_out(tmp_path: Path, name: str) -> None:
    """One sentence says what is wrong; the file that it asks for is taken."""
    text, sentence, cured = REFUSED[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(CommandError) as refusal:
        labels.read(tmp_path / name)
    assert sentence in str(refusal.value)
    if cured:
        (tmp_path / name).write_text(cured)
        assert labels.read(tmp_path / name) == ["a", "b"]


def test_repeated_names_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ImageNet has two classes 'crane', so a repeated name is no fault."""
    (tmp_path / "l.txt").write_text("1 crane\n2 crane\n3 tench\n")
    assert labels.read(tmp_path / "l.txt") == ["crane", "crane", "tench"]
    assert "The labels name more than one class 'crane'." in capsys.readouterr().err
