"""Studies: many trainings that answer one question. `study.py` is what a file says, `cells.py` what has to be run."""
