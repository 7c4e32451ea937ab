"""The judges that run here: each in one file, each behind `judge(query, candidates)`."""
