"""From a slide's tiles to rows of classes: plan, network, merge, rows on disk."""
