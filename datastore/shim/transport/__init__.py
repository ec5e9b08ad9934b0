"""The seam between raw message bytes on the wire and the handlers."""
