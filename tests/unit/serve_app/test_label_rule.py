"""Label selectors are read and matched as Ray reads and matches them."""

from __future__ import annotations

import pytest
from ray._private.label_utils import validate_label_selector
from ray._raylet import node_labels_match_selector

from serve_app.errors import InvalidPlanError
from serve_app.label_rule import label_rules

VALUES = ["l4", "!l4", "in(l4)", "in(l4,a10)", "in(l4, a10)", "!in(l4, a10)"]
MACHINES = [{}, {"gpu": "l4"}, {"gpu": "a10"}, {"gpu": "t4"}, {"gpu": ""}, {"rack": "l4"}]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("value", VALUES)
def test_a_machine_is_allowed_as_ray_allows_it(value, machine):
    """The room check must see the machines that Ray will see; Ray gets no spaces, which it would take for letters."""
    (rule,) = label_rules({"gpu": value}, "labels")

    assert rule.allows(machine) is node_labels_match_selector(machine, {"gpu": rule.selector})


@pytest.mark.parametrize("key", ["gpu", "ray.io/accelerator-type", "a.b/c_d", "x" * 63, f"{'a.' * 126}b/gpu"])
def test_a_label_that_ray_takes_is_taken(key):
    """With and without a prefix, up to the longest."""
    assert validate_label_selector({key: "l4"}) is None

    assert label_rules({key: "l4"}, "labels")[0].key == key


@pytest.mark.parametrize(
    "key", ["", "-gpu", "gpu-", "x" * 64, "my gpu", "a/b/c", "/gpu", "ray.io/", f"{'a.' * 127}b/gpu"]
)
def test_a_label_that_ray_refuses_is_refused_with_what_is_allowed(key):
    """Ray would refuse it when the replica is made, again and again; some of these it would not even notice."""
    with pytest.raises(InvalidPlanError) as caught:
        label_rules({key: "l4"}, "pools.gpu.labels")

    assert f"pools.gpu.labels: got the label {key!r}, allowed are up to 63 letters" in str(caught.value)


@pytest.mark.parametrize(
    "value", ["", "!", "l 4", "in()", "in(l4,", "in(l4,,a10)", "!!l4", "not_in(l4)", "(l4)", "-l4"]
)
def test_a_value_that_says_nothing_is_refused_with_what_is_allowed(value):
    """An empty one and one in bare brackets are taken by Ray, and then match no machine at all."""
    with pytest.raises(InvalidPlanError) as caught:
        label_rules({"gpu": value}, "pools.gpu.labels")

    assert f"pools.gpu.labels.gpu: got {value!r}, allowed are a value such as l4" in str(caught.value)
