"""From predictions to metrics: evaluation, controls, comparison, external validation, zero-shot."""
