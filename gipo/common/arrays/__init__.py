"""Numbers and images, as what holds them can."""
