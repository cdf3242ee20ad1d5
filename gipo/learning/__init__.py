"""What one iteration of learning is made of: its losses, its diagnostics, and a module that keeps a policy."""
