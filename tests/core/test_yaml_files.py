"""YAML: what is small is read as ever, what is without end is refused at once."""

from __future__ import annotations

import pytest
import yaml

from reblurkit.core.yaml_files import read_yaml
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
