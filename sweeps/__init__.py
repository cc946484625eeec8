"""Named sweeps: what each crosses with what (the YAML files here), and the engine that runs them."""
