"""grpc.reflection, which etcd does not serve: what a tool learns is enough to call a method."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from datastore.etcdpb import reflection_pb2 as pb
from tests.contract.api.conftest import SERVERS


@pytest.fixture(params=[each for each in SERVERS if each != "etcd"], scope="session")
def kind(request):
    return request.param


@pytest.fixture(params=["v1", "v1alpha"])
async def ask(request, client):
    call = client.channel.stream_stream(
        f"/grpc.reflection.{request.param}.ServerReflection/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )(timeout=60)

    async def send(**fields):
        question = pb.ServerReflectionRequest(host="h", **fields)
        await call.write(question)
        answer = await call.read()
        assert (answer.valid_host, answer.original_request) == ("h", question)
        return answer

    yield send
    call.cancel()


def files(answer):
    found = answer.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(each) for each in found]


SERVICES = {
    "etcdserverpb.Auth",
    "etcdserverpb.Cluster",
    "etcdserverpb.KV",
    "etcdserverpb.Lease",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Watch",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "v3electionpb.Election",
    "v3lockpb.Lock",
}


async def services(ask):
    listed = (await ask(list_services="*")).list_services_response.service
    return {each.name for each in listed}


async def test_all_services_are_listed(ask):
    assert await services(ask) == SERVICES


async def test_every_service_can_be_described_and_each_file_comes_once(ask):
    pool = descriptor_pool.DescriptorPool()
    for service in sorted(await services(ask)):
        answer = await ask(file_containing_symbol=service)
        for file in reversed(files(answer)):
            pool.Add(file)
        assert pool.FindServiceByName(service).methods


async def test_a_method_can_be_called_by_what_is_told(ask, client, prefix):
    pool = descriptor_pool.DescriptorPool()
    for file in reversed(files(await ask(file_containing_symbol="etcdserverpb.KV.Put"))):
        pool.Add(file)
    method = pool.FindMethodByName("etcdserverpb.KV.Put")
    request, answer = (
        message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type)
    )
    put = await client.call("KV/Put", request(key=prefix, value=b"x"), answer)
    assert put.header.revision == (await client.get(prefix)).kvs[0].mod_revision


async def test_a_file_is_found_by_its_name_again_and_again(ask):
    (first, *_) = files(await ask(file_containing_symbol="mvccpb.KeyValue"))
    for _ in range(2):
        (again,) = files(await ask(file_by_filename=first.name))
        assert again == first


async def test_a_message_is_found_by_its_name(ask):
    answer = await ask(all_extension_numbers_of_type="etcdserverpb.PutRequest")
    told = answer.all_extension_numbers_response
    assert (told.base_type_name, list(told.extension_number)) == ("etcdserverpb.PutRequest", [])


@pytest.mark.parametrize(
    "question",
    [
        {"file_by_filename": "missing.proto"},
        {"file_containing_symbol": "missing.Service"},
        {"file_containing_symbol": ""},
        {"all_extension_numbers_of_type": "missing.Message"},
        {"file_containing_extension": {"containing_type": "mvccpb.Event", "extension_number": 1}},
    ],
)
async def test_what_is_not_there_is_an_answer(ask, question):
    answer = await ask(**question)
    assert answer.error_response.error_code == 5
    assert (await ask(list_services="")).list_services_response.service
