"""actkit from Python: a model and images in, attacks, examinations and trainings out; no recipe, no role, no generator to think of."""
