"""What may be asked for; what cannot work is refused before anything runs."""
