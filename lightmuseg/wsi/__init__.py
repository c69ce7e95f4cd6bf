"""A slide as pixels: what opens it, which of its pictures it is, and how it looks at a um/px.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xl, yl`` pixels of one of its levels, ``xm, ym`` pixels at the
model's um/px: ``x0 = xl * downsample = xm * scale``.
"""
