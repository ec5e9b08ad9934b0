"""grpc.reflection: the services of this server and their .proto files, for tools such as grpcurl.

etcd does not serve it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import Default, DescriptorPool

from datastore.etcdpb import reflection_pb2 as pb
from datastore.etcdpb import reflection_v1alpha_pb2
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call, Code, RpcError

_VERSIONS: Final = (pb, reflection_v1alpha_pb2)
"""They differ in the name of their package alone, and not at all on the wire."""


class ReflectionService:
    """ServerReflectionInfo, under its name of today and that of before."""

    def __init__(self, desk: Desk) -> None:
        self._kinds = desk.kinds
        self._pool = Default()
        for version in _VERSIONS:
            service = version.DESCRIPTOR.services_by_name["ServerReflection"].full_name
            desk.stream(f"/{service}/ServerReflectionInfo", self.inform)

    async def inform(self, call: Call) -> None:
        """Answer each request in order; what is not there is an answer, not the end."""
        sent: set[str] = set()
        while (body := await call.recv()) is not None:
            request = pb.ServerReflectionRequest.FromString(body)
            answer = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
            try:
                self._answer(answer, request, sent)
            except KeyError:
                answer.error_response.error_code = Code.NOT_FOUND
                answer.error_response.error_message = "not found"
            await call.send(answer.SerializeToString())

    def _answer(
        self,
        answer: pb.ServerReflectionResponse,
        request: pb.ServerReflectionRequest,
        sent: set[str],
    ) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                names = {path.split("/")[1] for path in self._kinds}
                services = [pb.ServiceResponse(name=name) for name in sorted(names)]
                answer.list_services_response.service.extend(services)
            case "file_by_filename":
                file = self._pool.FindFileByName(request.file_by_filename)
                _add(answer.file_descriptor_response, file, sent)
            case "file_containing_symbol":
                file = _find(self._pool, request.file_containing_symbol)
                _add(answer.file_descriptor_response, file, sent)
            case "all_extension_numbers_of_type":
                kind = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                answer.all_extension_numbers_response.base_type_name = kind.full_name
            case "file_containing_extension":
                raise KeyError  # no message of etcd can be extended
            case _:
                raise RpcError(Code.INVALID_ARGUMENT, "invalid MessageRequest: nothing is asked")


def _find(pool: DescriptorPool, symbol: str) -> FileDescriptor:
    """Return the file of a symbol. Raises KeyError."""
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:  # which says nothing of methods
        return pool.FindMethodByName(symbol).containing_service.file


def _add(answer: pb.FileDescriptorResponse, file: FileDescriptor, sent: set[str]) -> None:
    answer.file_descriptor_proto.extend(each.serialized_pb for each in _unsent(file, sent))
    if not answer.file_descriptor_proto:
        # What was asked for comes in any case.
        answer.file_descriptor_proto.append(file.serialized_pb)


def _unsent(file: FileDescriptor, sent: set[str]) -> Iterator[FileDescriptor]:
    """Return a file and what it imports, as far as the client has not had it."""
    if file.name not in sent:
        sent.add(file.name)
        yield file
        for each in file.dependencies:
            yield from _unsent(each, sent)
