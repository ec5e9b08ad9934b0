"""etcd as a datastore: managed by byre, or run by someone else."""
