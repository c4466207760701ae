"""What attacks share: budget, the two models, judged candidates, the control, the result."""
