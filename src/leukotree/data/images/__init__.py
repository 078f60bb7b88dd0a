"""One image file: what it is, what it shows, and the JPEG that a shard holds."""
