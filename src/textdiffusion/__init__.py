"""Text diffusion models under one roof."""
