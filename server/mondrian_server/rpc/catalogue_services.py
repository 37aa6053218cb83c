"""AdvisorService and ModelService: what can be asked for."""

from collections.abc import Sequence

from mondrian.v1 import advisor_service_pb2 as advisor_pb2
from mondrian.v1 import model_service_pb2 as model_pb2
from mondrian_server.advisors import Advisor
from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.engine.interface import Engine
from mondrian_server.errors import ModelNotFound
from mondrian_server.rpc.convert import from_advisor, from_model
from mondrian_server.rpc.paging import page
from mondrian_server.rpc.reception import Context


class AdvisorServicer:
    """Serves `mondrian.v1.AdvisorService`."""

    def __init__(self, advisors: Sequence[Advisor]) -> None:
        """Serve these advisors, in this order."""
        self._advisors = advisors

    async def ListAdvisors(  # noqa: N802  # gRPC's name
        self, request: advisor_pb2.ListAdvisorsRequest, _: Context
    ) -> advisor_pb2.ListAdvisorsResponse:
        """List the advisors."""
        advisors, next_page_token = page(self._advisors, request.page_size, request.page_token)
        return advisor_pb2.ListAdvisorsResponse(
            advisors=[from_advisor(advisor) for advisor in advisors], next_page_token=next_page_token
        )


class ModelServicer:
    """Serves `mondrian.v1.ModelService` for the one model that the server runs."""

    def __init__(self, name: str, engine: Engine, scheduler: Scheduler) -> None:
        """Serve the model called `name`, `models/{id}`."""
        self._name = name
        self._engine = engine
        self._scheduler = scheduler

    async def ListModels(  # noqa: N802  # gRPC's name
        self, request: model_pb2.ListModelsRequest, _: Context
    ) -> model_pb2.ListModelsResponse:
        """List the models."""
        models, next_page_token = page([self._model()], request.page_size, request.page_token)
        return model_pb2.ListModelsResponse(models=models, next_page_token=next_page_token)

    async def GetModel(  # noqa: N802  # gRPC's name
        self, request: model_pb2.GetModelRequest, _: Context
    ) -> model_pb2.GetModelResponse:
        """Get a model."""
        if request.name != self._name:
            raise ModelNotFound(f"there is no model {request.name[:80]!r}; the model is {self._name!r}", field="name")
        return model_pb2.GetModelResponse(model=self._model())

    def _model(self) -> model_pb2.Model:
        return from_model(self._name, self._engine.status, queue_length=self._scheduler.waiting)
