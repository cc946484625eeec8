"""A formulation is a few numbers per sample: schedule x target x timestep sampler. Imports no torch by itself."""
