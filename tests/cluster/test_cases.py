from tests.cases import EngineCases


class TestFakeEngine(EngineCases):
    pass
