"""Proofs of identity: tokens and passwords."""
