"""Weights published by the authors of SEDD, MDLM and RADD: read, checked and converted to runs."""
