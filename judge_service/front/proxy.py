"""Installs the gate in Ray's proxy. Each proxy calls `middlewares`: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it.

A proxy is one of Ray's processes. The proxy reads the rules of the gate from its environment. A local Ray inherits the
environment of the process that starts the service.
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
    """The configuration of the gate in a proxy."""

    model_config = ConfigDict(frozen=True)

    rules: GateRules
    state: Path
    """The file with the state of the service."""

    def environment(self) -> dict[str, str]:
        """Returns the environment variables that pass this configuration to Ray's proxies."""
        return {
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.{middlewares.__name__}",
            VARIABLE: self.model_dump_json(),
        }


def middlewares() -> list[Middleware]:
    """Returns the middlewares of a proxy."""
    orders = ProxyOrders.model_validate_json(os.environ[VARIABLE])
    _allow_connections()
    # Ray uses uvicorn's protocol "auto", and has not created a server yet.
    uvicorn.config.HTTP_PROTOCOLS["auto"] = (
        f"{BoundedConnection.__module__}:{BoundedConnection.__name__}"
    )
    return [Middleware(Gate, rules=orders.rules, state=StateFile(orders.state))]


def _allow_connections() -> None:
    """Raises the limit of open files to the system's limit, since every connection is an open file.

    At most half of the files are for idle connections, so that the others remain for requests.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if limit != resource.RLIM_INFINITY:
        BoundedConnection.most_idle = min(BoundedConnection.most_idle, limit // 2)
