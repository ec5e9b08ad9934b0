"""Messages and stubs of the etcd v3 API, generated from proto/ by `make proto`."""
