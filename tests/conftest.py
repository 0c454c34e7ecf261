from hypothesis import settings

# A busy machine is no bug: examples may take as long as they need.
settings.register_profile("random", deadline=None)
# The same examples at each run, so that no commit fails by luck; `--hypothesis-profile=random` looks for new ones.
settings.register_profile("reproducible", deadline=None, derandomize=True, database=None)
settings.load_profile("reproducible")
