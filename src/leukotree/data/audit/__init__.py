"""What a packed data set gives away, and which of its images are copies."""
