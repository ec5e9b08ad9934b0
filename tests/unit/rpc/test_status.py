"""Every error has the code that etcd's clients expect, and etcd's exact words."""

from __future__ import annotations

import pytest

from datastore.shim import errors
from datastore.shim.backends.api import Unavailable
from datastore.shim.rpc.service import to_refusal
from datastore.shim.rpc.status import to_rpc_error
from datastore.shim.transport.api import Code, RpcError

EXPECTED = {
    errors.KeyNotProvided: Code.INVALID_ARGUMENT,
    errors.KeyNotFound: Code.INVALID_ARGUMENT,
    errors.ValueProvided: Code.INVALID_ARGUMENT,
    errors.LeaseProvided: Code.INVALID_ARGUMENT,
    errors.TooManyOps: Code.INVALID_ARGUMENT,
    errors.DuplicateKey: Code.INVALID_ARGUMENT,
    errors.InvalidSortOption: Code.INVALID_ARGUMENT,
    errors.RequestTooLarge: Code.INVALID_ARGUMENT,
    errors.Compacted: Code.OUT_OF_RANGE,
    errors.FutureRevision: Code.OUT_OF_RANGE,
    errors.LeaseTtlTooLarge: Code.OUT_OF_RANGE,
    errors.LeaseNotFound: Code.NOT_FOUND,
    errors.LeaseExists: Code.FAILED_PRECONDITION,
    errors.AuthNotEnabled: Code.FAILED_PRECONDITION,
    errors.AuthFailed: Code.INVALID_ARGUMENT,
    errors.NoPasswordUser: Code.UNKNOWN,
    errors.InvalidAuthToken: Code.UNAUTHENTICATED,
    errors.AuthOldRevision: Code.INVALID_ARGUMENT,
    errors.PermissionDenied: Code.PERMISSION_DENIED,
    errors.UserEmpty: Code.INVALID_ARGUMENT,
    errors.UserNotFound: Code.FAILED_PRECONDITION,
    errors.UserAlreadyExists: Code.FAILED_PRECONDITION,
    errors.RootUserNotExist: Code.FAILED_PRECONDITION,
    errors.RootRoleNotExist: Code.FAILED_PRECONDITION,
    errors.RoleEmpty: Code.INVALID_ARGUMENT,
    errors.RoleNotFound: Code.FAILED_PRECONDITION,
    errors.RoleAlreadyExists: Code.FAILED_PRECONDITION,
    errors.RoleNotGranted: Code.FAILED_PRECONDITION,
    errors.PermissionNotGiven: Code.INVALID_ARGUMENT,
    errors.PermissionNotGranted: Code.FAILED_PRECONDITION,
    errors.InvalidAuthManagement: Code.INVALID_ARGUMENT,
    errors.NoSpace: Code.RESOURCE_EXHAUSTED,
    errors.TooManyRequests: Code.RESOURCE_EXHAUSTED,
    errors.TimedOut: Code.UNAVAILABLE,
    errors.Stopped: Code.UNAVAILABLE,
    errors.NoLeader: Code.UNAVAILABLE,
    errors.CorruptStore: Code.DATA_LOSS,
}


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_an_error_has_its_code_and_exactly_its_text(kind: type[errors.ShimError]) -> None:
    error = to_rpc_error(kind())
    assert (error.code, error.message) == (EXPECTED[kind], kind.text)


def test_no_error_of_the_shim_is_missing_here() -> None:
    bases = {errors.RequestError, errors.StoreError}
    leaves = {
        kind
        for base in bases
        for kind in base.__subclasses__()
        if kind.__module__ == errors.__name__
    }
    assert leaves == set(EXPECTED)


def test_a_detail_is_not_sent() -> None:
    assert to_rpc_error(errors.NoLeader("mysql://u:p@h: refused")).message == errors.NoLeader.text


def test_a_backend_that_is_away_is_no_leader() -> None:
    assert to_refusal(Unavailable("gone")).message == errors.NoLeader.text


def test_a_refusal_of_a_handler_passes_as_it_is() -> None:
    error = RpcError(Code.UNIMPLEMENTED, "no")
    assert to_refusal(error) is error
