"""What policies that see cost: models of real size, with random weights where none can be fetched."""
