from tests.budget_cases import BudgetCases
from tests.cases import EngineCases


class TestVllm(EngineCases):
    pass


class TestBudgetOfVllm(BudgetCases):
    pass
