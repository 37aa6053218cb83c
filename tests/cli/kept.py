"""Analyses that a scripted server keeps."""

import grpc

from mondrian.v1 import analysis_pb2 as pb
from tests.client.scripted_server import ScriptedServer, rich_status

ACTIVE = "analyses/" + "a" * 32
COMPLETE = "analyses/" + "b" * 32
FAILED = "analyses/" + "bad" + "c" * 29
CANCELLED = "analyses/" + "bad" + "d" * 29


def keep(server: ScriptedServer) -> None:
    """Let the server keep one analysis of each state."""
    server.analyses = {analysis.name: analysis for analysis in (_active(), _complete(), _failed(), _cancelled())}


def _analysis(name: str, state: "pb.AnalysisState.ValueType", text: str, prompt: str) -> pb.Analysis:
    analysis = pb.Analysis(name=name, state=state, text=text, request_id="r1")
    analysis.create_time.FromSeconds(1_700_000_000)
    analysis.config.CopyFrom(
        pb.AnalysisConfig(prompt=prompt, model="models/m", sampling=pb.Sampling(seed=7, top_p=0.5))
    )
    if state != pb.ANALYSIS_STATE_ACTIVE:
        analysis.end_time.FromSeconds(1_700_000_060)
    return analysis


def _active() -> pb.Analysis:
    analysis = _analysis(ACTIVE, pb.ANALYSIS_STATE_ACTIVE, "So far", "Go on.")
    message = "Generating analysis... (2 tokens, 9.0 tps)"
    analysis.progress.CopyFrom(
        pb.Progress(stage=pb.STAGE_GENERATING, message=message, fraction=0.5, output_tokens=2, continuations=1)
    )
    return analysis


def _complete() -> pb.Analysis:
    analysis = _analysis(COMPLETE, pb.ANALYSIS_STATE_COMPLETED, '=1+1, "a"\ncat\x1b[2J 貓', "-What,\nis it?")
    analysis.config.advisor = "advisors/ansel"
    analysis.image_count = 1
    usage = pb.Usage(prompt_tokens=70, output_tokens=12)
    analysis.completed.CopyFrom(pb.Completed(finish_reason=pb.FINISH_REASON_MAX_TOKENS, usage=usage))
    analysis.completed.timings.total.FromMilliseconds(4500)
    return analysis


def _failed() -> pb.Analysis:
    analysis = _analysis(FAILED, pb.ANALYSIS_STATE_FAILED, "partial", "Why?")
    status = rich_status(grpc.StatusCode.INTERNAL, "the engine crashed 3 times", reason="ENGINE_CRASHED")
    analysis.failed.CopyFrom(pb.Failed(error=status, usage=pb.Usage(output_tokens=1)))
    return analysis


def _cancelled() -> pb.Analysis:
    analysis = _analysis(CANCELLED, pb.ANALYSIS_STATE_CANCELLED, "", "")
    analysis.cancelled.CopyFrom(pb.Cancelled(stage=pb.STAGE_QUEUED))
    analysis.expired = True
    return analysis
