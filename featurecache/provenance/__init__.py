"""What something was trained on, and the check that it is not scored on the same images."""
