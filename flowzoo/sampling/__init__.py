"""From noise to data: grids of sigma levels, step rules and guidance. This package imports no torch by itself."""
