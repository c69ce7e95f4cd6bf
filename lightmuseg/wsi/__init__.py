"""A slide as pixels: what opens it, which of its pictures it is, and how it looks at a um/px."""
