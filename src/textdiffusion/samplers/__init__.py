"""Samplers, one file per algorithm: frozen dataclasses whose fields are the settings and whose call samples."""
