"""Maps as files that other tools open."""
