"""Networks: from a corrupted state to hidden features, with the parameterisation that makes them a denoiser."""
