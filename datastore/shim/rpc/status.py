"""Which gRPC code goes with which error: one table (contract 2.12)."""

from __future__ import annotations

from typing import Final

from datastore.shim import errors
from datastore.shim.transport.api import Code, RpcError

_CODES: Final[dict[type[errors.ShimError], Code]] = {
    errors.Compacted: Code.OUT_OF_RANGE,
    errors.FutureRevision: Code.OUT_OF_RANGE,
    errors.LeaseTtlTooLarge: Code.OUT_OF_RANGE,
    errors.LeaseNotFound: Code.NOT_FOUND,
    errors.LeaseExists: Code.FAILED_PRECONDITION,
    errors.RequestError: Code.INVALID_ARGUMENT,
    errors.AuthNotEnabled: Code.FAILED_PRECONDITION,
    errors.NoPasswordUser: Code.UNKNOWN,
    errors.InvalidAuthToken: Code.UNAUTHENTICATED,
    errors.PermissionDenied: Code.PERMISSION_DENIED,
    errors.UserNotFound: Code.FAILED_PRECONDITION,
    errors.UserAlreadyExists: Code.FAILED_PRECONDITION,
    errors.RootUserNotExist: Code.FAILED_PRECONDITION,
    errors.RootRoleNotExist: Code.FAILED_PRECONDITION,
    errors.RoleNotFound: Code.FAILED_PRECONDITION,
    errors.RoleAlreadyExists: Code.FAILED_PRECONDITION,
    errors.RoleNotGranted: Code.FAILED_PRECONDITION,
    errors.PermissionNotGranted: Code.FAILED_PRECONDITION,
    errors.NoSpace: Code.RESOURCE_EXHAUSTED,
    errors.TooManyRequests: Code.RESOURCE_EXHAUSTED,
    errors.CorruptStore: Code.DATA_LOSS,
    errors.StoreError: Code.UNAVAILABLE,
    errors.ShimError: Code.UNKNOWN,
}


def to_rpc_error(error: errors.ShimError) -> RpcError:
    """Return the error as it goes over the wire: etcd's exact words, no detail behind them."""
    code = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    return RpcError(code, error.text)
