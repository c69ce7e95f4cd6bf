"""Slides in, maps out."""
