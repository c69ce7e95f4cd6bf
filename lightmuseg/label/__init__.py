"""MONAI Label: annotate where the network is unsure, and it learns."""

# ways to score, and the tag of labels that are finished
METHODS = ("entropy", "epistemic")
FINAL = "final"
