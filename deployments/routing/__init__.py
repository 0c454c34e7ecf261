"""Which of several replicas of one model gets a request."""
