"""MONAI Label: annotate where the network is unsure, and it learns."""
