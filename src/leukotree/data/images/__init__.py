"""Image files: their formats, damage, pixels, and the JPEG that a shard holds."""
