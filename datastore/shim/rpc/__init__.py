"""etcd's RPCs: check and decode a request, ask the core, encode the answer."""
