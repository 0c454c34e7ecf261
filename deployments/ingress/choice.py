"""Which model a request is for, among those that its key opens, whether they run or not."""

import contextlib
from collections.abc import Mapping

from config.auth import Key
from deployments.errors import ModelNotFoundError
from deployments.ingress.on_demand import Catalog, InstanceModel
from deployments.ingress.routing import choose_model, require_allowed, visible
from deployments.ingress.services import Model, Models


def choose(models: Mapping[str, Model], key: Key | None, requested: str | None, default: str | None) -> Model:
    """Pick the model of a request among those that its key opens.

    Without a name it is the only one, else the default, else the only one that is not a stopped instance. Raises what
    `choose_model` does, AccessDeniedError when the key does not open the model.
    """
    mine = models if key is None or key.instances is None else {name: models[name] for name in visible(key, models)}
    if not requested and default is None and len(mine) > 1:
        wanted = {name: model for name, model in mine.items() if is_wanted(model)}
        mine = wanted if len(wanted) == 1 else mine
    try:
        return choose_model(mine, requested, default)
    except ModelNotFoundError:
        with contextlib.suppress(ModelNotFoundError):
            require_allowed(key, choose_model(models, requested, default).name)
        raise


async def find(models: Models, key: Key | None, requested: str | None, default: str | None) -> Model:
    """Do as `choose`; an instance that was defined just now is not unknown."""
    try:
        return choose(models.models(), key, requested, default)
    except ModelNotFoundError:
        if not isinstance(models, Catalog):
            raise
    await models.renew()
    return choose(models.models(), key, requested, default)


def is_wanted(model: Model) -> bool:
    return model.is_wanted if isinstance(model, InstanceModel) else True
