"""What a person or a program sees of a session. Nothing here waits for anything."""
