"""In kine's place: its command line, served by the shim."""
