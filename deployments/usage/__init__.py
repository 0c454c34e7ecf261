"""What each API key uses, counted together by all ingress replicas."""
