"""What of a slide is wanted: its tissue, or a region that a user draws."""
