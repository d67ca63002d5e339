"""Samplers: generators of denoising steps. One file per idea."""
