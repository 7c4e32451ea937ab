"""The losses, as pure functions of the student's similarities and the judge's scores."""
