"""The whole store as of one commit: read row by row, and written as the database file of etcd."""
