"""A complete etcd v3 server over a SQL database."""
