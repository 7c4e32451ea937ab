"""What a student learns from, as pure functions of its similarities and of the judge's scores."""
