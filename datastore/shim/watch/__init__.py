"""Feed committed changes to watchers, live or from history."""
