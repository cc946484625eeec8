"""Composing, checking and storing runs. Nothing here imports torch."""
