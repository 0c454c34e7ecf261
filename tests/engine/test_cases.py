from tests.budget_cases import BudgetCases
from tests.cases import EngineCases
from tests.harness import PLANES

planes = PLANES


class TestVllm(EngineCases):
    pass


class TestBudgetOfVllm(BudgetCases):
    pass
