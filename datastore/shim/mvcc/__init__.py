"""etcd's data model in plain synchronous Python: no gRPC, no asyncio, no SQL, no clock."""
