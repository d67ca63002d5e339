"""Ways to look at denoising, and at noising: each view is a consumer of an iterator of `Step`."""
