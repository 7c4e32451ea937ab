"""Our gate inside Ray's proxy. `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names `middlewares`; each proxy calls it.

A proxy is a process of Ray's own. It learns what may pass from its environment, which a local Ray inherits from the
process that starts the service.
"""

import os
import resource
from pathlib import Path

import uvicorn.config
from pydantic import BaseModel, ConfigDict
from starlette.middleware import Middleware

from judge_service.front.connections import BoundedConnection
from judge_service.front.gate import Gate, GateRules
from judge_service.front.state import StateFile

VARIABLE = "UNIJUDGE_FRONT"


class ProxyOrders(BaseModel):
    """What a proxy is told."""

    model_config = ConfigDict(frozen=True)

    rules: GateRules
    state: Path
    """The file of the service's state."""

    def environment(self) -> dict[str, str]:
        """The variables by which Ray's proxies learn it."""
        return {
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.{middlewares.__name__}",
            VARIABLE: self.model_dump_json(),
        }


def middlewares() -> list[Middleware]:
    """What a proxy passes each request through."""
    orders = ProxyOrders.model_validate_json(os.environ[VARIABLE])
    _allow_connections()
    # Ray lets uvicorn choose; it has made no server yet.
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{BoundedConnection.__module__}:{BoundedConnection.__name__}"
    return [Middleware(Gate, rules=orders.rules, state=StateFile(orders.state))]


def _allow_connections() -> None:
    """Every connection is an open file, one that says nothing too: take as many as the system lets us.

    Where that is few, half of them are for callers who ask.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY:
        BoundedConnection.most_idle = min(BoundedConnection.most_idle, most // 2)
