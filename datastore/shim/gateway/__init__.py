"""The JSON gateway: etcd's RPCs as HTTP requests below /v3/, as grpc-gateway makes them."""
