"""The doctor: looks at what the service stands on, and says what to do about what is wrong."""

from mondrian_server.doctor.examination import Examination
from mondrian_server.doctor.finding import Finding, Level
from mondrian_server.doctor.model import EngineParts
from mondrian_server.doctor.versions import find_versions

__all__ = ["EngineParts", "Examination", "Finding", "Level", "find_versions"]
