"""How many tensor operations measuring takes where the native core does not: on an accelerator each may be a launch."""

import pytest

from gradlens.native import core
from tests.operations import of_a_norm, of_a_parameter, on_device_of_parameters, without_native_core


@pytest.mark.parametrize("size", [4, 80])
def test_a_further_parameter_takes_two_operations_on_a_device(size):
    assert on_device_of_parameters(20, size) - on_device_of_parameters(10, size) <= 2 * 10


def test_a_further_parameter_takes_two_operations_on_the_host():
    with without_native_core():
        assert of_a_parameter() <= 2


def test_a_further_norm_takes_ten_operations():
    with without_native_core():
        assert of_a_norm() <= 10


def test_with_the_native_core_a_norm_takes_one_operation_a_copy_of_its_gain():
    if core.library is None:
        pytest.skip("the native core was not compiled")
    assert of_a_norm() <= 1
