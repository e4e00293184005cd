"""Numbers of a trained model, and how to read them."""
