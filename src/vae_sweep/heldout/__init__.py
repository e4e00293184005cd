"""Held-out metrics of a trained model: bounds, latents, reconstruction quality, distances to the test images."""
