"""Objects of images of the procedural world: form, colour, size, place, told by a small network of our own."""
