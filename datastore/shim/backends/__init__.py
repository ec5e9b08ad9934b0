"""Durable, totally ordered logs of commits: one protocol, one module a database."""
