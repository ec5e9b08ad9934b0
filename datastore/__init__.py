"""Turn one choice in a configuration file into an etcd endpoint and the processes behind it."""
