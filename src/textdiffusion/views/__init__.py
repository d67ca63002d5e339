"""Views of denoising and of noising: each reads an iterator of `Step`."""
