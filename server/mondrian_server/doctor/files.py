"""Files that settings name: whether they can be read and hold what they should. What is in them is never shown."""

from collections.abc import Iterator
from pathlib import Path

from mondrian_server.advisors import Advisors
from mondrian_server.callers.key_file import is_readable_by_others, read_key_file
from mondrian_server.configuration import tls_files
from mondrian_server.doctor.certificates import find_certificate
from mondrian_server.doctor.finding import Finding, ok, problem, warning
from mondrian_server.errors import StartupError
from mondrian_server.rpc.tls import Tls
from mondrian_server.settings import Settings

KEYS = "keys file"
_CORRECT = "correct the file, or leave the setting out"


def find_files(settings: Settings) -> Iterator[Finding]:
    """Yield how each of the files that the settings name stands."""
    if settings.advisors_file is not None:
        yield _advisors(settings.advisors_file)
    if settings.keys_file is not None:
        yield _keys(settings.keys_file)
    if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
        yield _tls(settings, settings.tls_certificate_file, settings.tls_key_file)
    if settings.http_tls_certificate_file is not None and settings.http_tls_key_file is not None:
        yield find_certificate("HTTP TLS", settings.http_tls_certificate_file, settings.http_tls_key_file)


def _advisors(file: Path) -> Finding:
    try:
        Advisors.load(file)
    except StartupError as error:
        return problem("advisors file", _in_one_line(error), _CORRECT)
    return ok("advisors file", f"{file} is whole")


def _keys(file: Path) -> Finding:
    try:
        keys = read_key_file(file).keys.values()
    except StartupError as error:
        return problem(KEYS, _in_one_line(error), _CORRECT)
    in_force = [key for key in keys if not key.revoked]
    text = f"{file}: {len(in_force)} in force, of {len({key.caller for key in in_force})} callers"
    if not in_force:
        return warning(KEYS, text, f"make one with `mondrian keys add NAME --keys-file {file}`")
    if is_readable_by_others(file):
        return warning(KEYS, f"{text}; others than its owner can read it", f"chmod 600 {file}")
    return ok(KEYS, text)


def _tls(settings: Settings, certificate: Path, key: Path) -> Finding:
    found = find_certificate("TLS", certificate, key)
    try:
        Tls.open(tls_files(settings))
    except StartupError as error:
        return problem("TLS", _in_one_line(error), "name files that this user may read, PEM, without a password")
    return found


def _in_one_line(error: StartupError) -> str:
    return "; ".join(str(error).splitlines())
