"""What runs beside a robot: an artifact is checked and asked, without torch."""
