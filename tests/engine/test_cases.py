from tests.cases import EngineCases


class TestVllm(EngineCases):
    pass
