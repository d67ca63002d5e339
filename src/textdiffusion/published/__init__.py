"""Weights that others published, in the layouts of SEDD, MDLM and RADD: read, checked and made a run."""
