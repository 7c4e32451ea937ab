"""The routes of other servers, so that their clients can call the judge."""
