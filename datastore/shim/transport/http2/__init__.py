"""Our own HTTP/2 and gRPC server protocol, on the event loop."""
