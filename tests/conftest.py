from hypothesis import settings

# A busy machine is no bug: examples may take as long as they need.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
