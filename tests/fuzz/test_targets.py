"""What `make fuzz` begins with, and octets by chance: the targets are kept up to date."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import frames, hpack, shapes

targets = pytest.mark.parametrize("target", [frames, hpack, shapes])


@targets
def test_what_the_fuzzer_begins_with_goes_well(target: ModuleType) -> None:
    for seed in target.SEEDS:
        target.attempt(seed)


@targets
@given(data=st.binary(max_size=200))
def test_any_octets_go_well(target: ModuleType, data: bytes) -> None:
    target.attempt(data)
