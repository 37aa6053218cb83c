"""The routes of what can be asked for: advisors and models."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from mondrian.v1 import advisor_service_pb2 as advisor_pb
from mondrian.v1 import model_service_pb2 as model_pb
from mondrian_server.gateway.answers import errors, json_answer, told
from mondrian_server.gateway.connection import Connection, answer, caller_metadata
from mondrian_server.gateway.options import Limits

Id = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="The last part of the model's name.")]
PageSize = Annotated[int, Query(alias="pageSize", ge=0, le=1000, description="0: the server chooses.")]
PageToken = Annotated[
    str, Query(alias="pageToken", max_length=64, description="The `nextPageToken` of the page before.")
]


def catalogue_routes(connection: Connection, limits: Limits) -> APIRouter:
    """Return the routes of advisors and models."""
    router = APIRouter(prefix="/v1", tags=["catalogue"])
    limit_s = limits.call_limit_s

    @router.get("/advisors", responses={**errors(), 200: told("ListAdvisorsResponse", "The advisors.")})
    async def list_advisors(request: Request, size: PageSize = 0, token: PageToken = "") -> Response:
        """List the advisors that can be asked, in the order of their ids."""
        message = advisor_pb.ListAdvisorsRequest(page_size=size, page_token=token)
        metadata = caller_metadata(request.headers)
        return json_answer(await answer(connection.advisors.ListAdvisors(message, metadata=metadata, timeout=limit_s)))

    @router.get("/models", responses={**errors(), 200: told("ListModelsResponse", "The models, the default first.")})
    async def list_models(request: Request, size: PageSize = 0, token: PageToken = "") -> Response:
        """List the models and how they are."""
        message = model_pb.ListModelsRequest(page_size=size, page_token=token)
        metadata = caller_metadata(request.headers)
        return json_answer(await answer(connection.models.ListModels(message, metadata=metadata, timeout=limit_s)))

    @router.get("/models/{id}", responses={**errors(404), 200: told("Model", "The model.")})
    async def get_model(request: Request, id: Id) -> Response:  # noqa: A002 - the contract's word
        """Get one model and how it is."""
        message = model_pb.GetModelRequest(name=f"models/{id}")
        metadata = caller_metadata(request.headers)
        response = await answer(connection.models.GetModel(message, metadata=metadata, timeout=limit_s))
        return json_answer(response.model)

    return router
