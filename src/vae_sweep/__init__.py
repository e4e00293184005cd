"""vae_sweep: does the architecture of a VAE matter, and by how much?"""

__version__ = "0.1.0"
