"""A policy on another machine: a server that is asked over an authenticated and encrypted socket, and its client."""
