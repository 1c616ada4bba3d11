"""Nested settings made flat and compared."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_d2.io.settings import differences, flat, nested

leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3) | st.lists(st.integers())
trees = st.recursive(leaves, lambda child: st.dictionaries(st.sampled_from("ABCD"), child, min_size=1), max_leaves=12)
configurations = st.dictionaries(st.sampled_from("ABCD"), trees)


@settings(deadline=None)
@given(configurations)
def test_flat_settings_can_be_nested_again(values):
    assert repr(nested(flat(values))) == repr(values)
    assert differences(values, values) == []


@settings(deadline=None)
@given(configurations, configurations)
def test_differences_are_the_same_from_both_sides_and_all_that_there_are(one, other):
    found = differences(one, other)
    assert sorted(found) == sorted(differences(other, one))
    changed = {key: value for key, value in flat(one).items() if key in found}
    kept = {key: value for key, value in flat(other).items() if key not in found}
    assert repr(dict(sorted((kept | changed).items()))) == repr(dict(sorted(flat(one).items())))


@pytest.mark.parametrize(("one", "other"), [((1, 2), [1, 2]), (((1,), [2]), ([1], (2,))), ({"B": ()}, {"B": []})])
def test_tuples_equal_lists_as_configurations_and_files_hold_the_same(one, other):
    assert differences({"A": one}, {"A": other}) == []
