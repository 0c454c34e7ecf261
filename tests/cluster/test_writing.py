from tests.writing_cases import WritingCases


class TestFakeEngine(WritingCases):
    pass
