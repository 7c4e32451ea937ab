"""The scripts run in another environment, so they are not collected here."""

collect_ignore = ["scripts"]
