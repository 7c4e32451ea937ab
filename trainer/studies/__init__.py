"""Studies: many trainings that answer one question. `study.py` reads a study's file, `cells.py` lists the runs."""
