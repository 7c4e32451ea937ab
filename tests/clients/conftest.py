"""The scripts need another environment, so pytest does not collect them here."""

collect_ignore = ["scripts"]
