"""What people think of the answers."""
