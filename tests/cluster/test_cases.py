from tests.budget_cases import BudgetCases
from tests.cases import EngineCases


class TestFakeEngine(EngineCases):
    pass


class TestBudgetOfFakeEngine(BudgetCases):
    pass
