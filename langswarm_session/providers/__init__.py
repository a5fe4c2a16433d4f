"""Who generates replies: the offline mock, and whatever is plugged in."""
