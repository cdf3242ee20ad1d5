"""Where policies come from: checkpoints, artifacts and logs name each other by id, and here they are put together."""
