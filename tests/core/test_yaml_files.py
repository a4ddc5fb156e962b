"""YAML: what is small is read as ever, what is without end is refused at once."""

from __future__ import annotations

import pytest
import yaml

from reblurkit.core.yaml_files import check_colons, read_yaml
from tests.fuzz.hostile import endless


def test_configurations_are_read_as_by_the_library():
    text = "a: &x {b: [1, 2.5, null], c: text}\nd: {<<: *x, e: true}\nf: [*x, *x]\n"
    assert read_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("name", endless())
def test_what_stands_for_more_than_a_configuration_is_refused(name):
    with pytest.raises(yaml.YAMLError):
        read_yaml(endless()[name])


def test_objects_are_refused():
    with pytest.raises(yaml.YAMLError):
        read_yaml("!!python/object/apply:os.getcwd []")


def test_a_missing_colon_is_found_and_texts_are_left_alone():
    for text in ("a:\n  b c", "a:\n  - b:\n      c d", "x: &x {a: 1}\ny: *x\nz:\n  b c", "a b"):
        with pytest.raises(yaml.MarkedYAMLError, match="has no colon"):
            check_colons(text)
    long = yaml.safe_dump({"text": "word " * 40, "texts": ["word " * 40]})  # folded into several lines
    for text in (
        "",
        "a: b c",
        "a: b\n  c",
        "- b c",
        "a:\n  'b c'",
        "a:\n  b",
        "a: |\n  b c",
        "{a: b c}",
        "root:\n  /data/My Photos",
        "3",
        long,
    ):
        check_colons(text)
