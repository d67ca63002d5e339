"""Every law, bound and sampler against an answer known completely."""
