"""What every package may import: no torch, nothing but the standard library and numpy."""
