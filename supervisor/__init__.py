"""Run a control plane as naked child processes and keep it running."""
