"""What is known of a timestep law before training: the one that a spectrum predicts, and what the study found."""
