"""Training of what models/ defines: the synthetic stage, losses, the stages of the paper."""
