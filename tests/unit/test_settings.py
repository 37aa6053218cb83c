"""Settings: precedence, and one clear line for each fault with its source."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mondrian_server.errors import StartupError
from mondrian_server.settings import Settings, describe, embedded_model, load


def refusal(
    *, flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None, config: str | None = None
) -> list[str]:
    """Return the lines with which settings are refused."""
    with pytest.raises(StartupError) as caught:
        load(flags or {}, environment or {}, config=config)
    return str(caught.value).splitlines()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where the test writes its TOML file."""
    return tmp_path / "mondrian.toml"


def test_flags_go_before_environment_before_file_before_defaults(config: Path) -> None:
    """The precedence that the help text states."""
    config.write_text("slots = 2\nlookahead = 2\nmax_request_images = 2\n")
    environment = {"MONDRIAN_SLOTS": "3", "MONDRIAN_LOOKAHEAD": "3"}
    settings = load({"slots": "4"}, environment, config=str(config))
    assert (settings.slots, settings.lookahead, settings.max_request_images) == (4, 3, 2)
    assert settings.max_waiting_analyses == Settings().max_waiting_analyses


def test_the_variable_names_the_file_where_no_flag_does(config: Path) -> None:
    """`MONDRIAN_CONFIG` names the TOML file, and `--config` goes before it."""
    config.write_text("slots = 2\n")
    other = config.with_name("other.toml")
    other.write_text("slots = 3\n")
    environment = {"MONDRIAN_CONFIG": str(config)}
    assert load({}, environment).slots == 2
    assert load({}, environment, config=str(other)).slots == 3


def test_other_variables_are_not_looked_at() -> None:
    """Only variables that begin with `MONDRIAN_` count, and the client's address is no setting."""
    assert load({}, {"SLOTS": "x", "MONDRIAN_ADDRESS": "example.com:1", "mondrian_slots": "x"}) == Settings()


def test_unknown_settings_are_refused_with_their_source(config: Path) -> None:
    """A misspelt name is refused wherever it stands."""
    assert refusal(flags={"slot": "1"}) == ["--slot: there is no such setting"]
    assert refusal(environment={"MONDRIAN_FOO": "1"}) == ["MONDRIAN_FOO: there is no such setting"]
    assert refusal(environment={"MONDRIAN_Slots": "1"}) == ["MONDRIAN_Slots: there is no such setting"]
    config.write_text("slot = 1\n[server]\nslots = 1\n")
    assert refusal(config=str(config)) == [
        f"{config}: slot: there is no such setting",
        f"{config}: server: there is no such setting",
    ]


def test_mistyped_values_are_refused_with_their_source(config: Path) -> None:
    """A value of the wrong type is refused wherever it stands, and shown."""
    assert refusal(flags={"slots": "many"}) == ["--slots: must be a valid integer, not 'many'"]
    assert refusal(environment={"MONDRIAN_SLOTS": ""}) == ["MONDRIAN_SLOTS: must be a valid integer, not ''"]
    config.write_text("slots = 1.5\n")
    assert refusal(config=str(config)) == [
        f"{config}: slots: must be a valid integer, not 1.5",
    ]


@pytest.mark.parametrize("line", ['slots = "3"', "slots = true", "model = 3", "model = 2026-01-01", "data_dir = []"])
def test_toml_values_are_not_converted(config: Path, line: str) -> None:
    """TOML has types of its own: a string is not taken for a number, nor a number for a string."""
    config.write_text(line)
    (fault,) = refusal(config=str(config))
    assert fault.startswith(f"{config}: {line.partition(' ')[0]}: must be a valid ")


def test_toml_takes_whole_numbers_for_seconds(config: Path) -> None:
    """`5` is as good as `5.0` where seconds are asked for, and a string is a path where a path is."""
    config.write_text('shutdown_grace_s = 5\ndata_dir = "~/mondrian"\n')
    settings = load({}, {}, config=str(config))
    assert settings.shutdown_grace_s == 5
    assert settings.data_dir == Path.home() / "mondrian"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("slots", "0", "greater than or equal to 1"),
        ("slots", "1000", "less than or equal to 256"),
        ("image_decode_limit_s", "nan", "a finite number"),
        ("image_decode_limit_s", "inf", "a finite number"),
        ("image_decode_limit_s", "0", "greater than 0"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("model_id", "a/b", "must match pattern"),
        ("kv_cache_bits", "5", "must be 0, 2, 3, 4, 6 or 8"),
        ("kv_cache_group_size", "48", "must be 32, 64 or 128"),
        ("draft_model", "studio/draft", "no analysis can join a batch that a draft model speculates for"),
    ],
    ids=str,
)
def test_values_out_of_bounds_are_refused(name: str, value: str, rule: str) -> None:
    """Each bound is told in the line that refuses the value."""
    (line,) = refusal(flags={name: value})
    assert line.startswith(f"--{name.replace('_', '-')}: ") and rule in line


def test_every_fault_of_a_source_gets_a_line() -> None:
    """Somebody who made two mistakes reads of both."""
    assert len(refusal(environment={"MONDRIAN_SLOTS": "x", "MONDRIAN_LOOKAHEAD": "y"})) == 2


def test_settings_are_checked_together(config: Path) -> None:
    """Two settings that contradict each other are named with the sources of both."""
    config.write_text("max_image_bytes = 1000000\n")
    assert refusal(environment={"MONDRIAN_MAX_REQUEST_IMAGE_BYTES": "500000"}, config=str(config)) == [
        f"{config}: max_image_bytes: must not be greater than MONDRIAN_MAX_REQUEST_IMAGE_BYTES, "
        "but 1,000,000 is greater than 500,000"
    ]


def test_malformed_toml_is_refused_with_its_place(config: Path) -> None:
    """The line and column of the mistake are told."""
    config.write_text("slots = 1\nmodel = \n")
    (line,) = refusal(config=str(config))
    assert line.startswith(f"{config}: is not TOML: ") and "line 2, column 9" in line


def test_a_file_that_is_no_text_is_refused(config: Path) -> None:
    """A file of bytes is no TOML."""
    config.write_bytes(b"\xff\xfe\0")
    assert refusal(config=str(config)) == [f"{config}: is not TOML: it is not UTF-8 text"]


def test_a_missing_file_is_refused_with_what_named_it(config: Path) -> None:
    """Whoever named the file that cannot be read is named in turn."""
    problem = f"{config} cannot be read: No such file or directory"
    assert refusal(config=str(config)) == [f"--config: {problem}"]
    assert refusal(environment={"MONDRIAN_CONFIG": str(config)}) == [f"MONDRIAN_CONFIG: {problem}"]


@pytest.mark.parametrize("address", ["127.0.0.1:50051", "127.1.2.3:0", "localhost:1", "[::1]:65535"])
def test_loopback_addresses_are_accepted(address: str) -> None:
    """The machine's own addresses are fine."""
    assert load({"grpc_address": address}, {}).grpc_address == address


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:1", "192.168.1.5:1", "example.com:1", "[:1"])
def test_other_hosts_are_refused(address: str) -> None:
    """Without keys or client certificates the server binds to loopback only, and the line says what to do."""
    (line,) = refusal(flags={"grpc_address": address})
    assert line == (
        "--grpc-address: must be a loopback host (127.0.0.1, [::1] or localhost), "
        f"not {address!r}, because callers have neither keys (keys_file) nor client certificates (tls_client_ca_file)"
    )


def test_other_hosts_are_accepted_where_callers_are_known() -> None:
    """Keys, or client certificates, open the server to other machines; TLS alone does not."""
    tls = {"tls_certificate_file": "c.pem", "tls_key_file": "k.pem"}
    address = {"grpc_address": "0.0.0.0:50051"}
    assert load({**address, "keys_file": "keys.toml"}, {}).grpc_address == address["grpc_address"]
    assert load({**address, **tls, "tls_client_ca_file": "ca.pem"}, {}).grpc_address == address["grpc_address"]
    (line,) = refusal(flags={**address, **tls})
    assert line.startswith("--grpc-address: must be a loopback host")


def test_http_needs_keys_for_other_hosts() -> None:
    """The gateway's callers are named by keys alone, so client certificates do not open it."""
    tls = {"tls_certificate_file": "c.pem", "tls_key_file": "k.pem", "tls_client_ca_file": "ca.pem"}
    address = {"http_address": "0.0.0.0:8080"}
    assert load({**address, "keys_file": "keys.toml"}, {}).http_address == address["http_address"]
    for flags in (address, address | tls):
        (line,) = refusal(flags=flags)
        assert line.startswith("--http-address: must be a loopback host") and "no keys (keys_file)" in line


def test_tls_settings_need_one_another() -> None:
    """A certificate needs its key, a key its certificate, and client certificates a server's certificate."""
    assert refusal(flags={"tls_certificate_file": "c"}) == ["--tls-certificate-file: needs tls_key_file beside it"]
    assert refusal(environment={"MONDRIAN_TLS_KEY_FILE": "k"}) == [
        "MONDRIAN_TLS_KEY_FILE: needs tls_certificate_file beside it"
    ]
    assert refusal(flags={"tls_client_ca_file": "a"}) == ["--tls-client-ca-file: needs tls_certificate_file beside it"]


@pytest.mark.parametrize("address", ["", "50051", "localhost", "127.0.0.1:", "127.0.0.1:65536", ":1", "127.0.0.1:x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """An address has a host and a port."""
    assert refusal(flags={"grpc_address": address}) == [
        f"--grpc-address: must be host:port, such as 127.0.0.1:50051, not {address!r}"
    ]


@pytest.mark.parametrize(
    ("model", "model_id"),
    [
        ("", "mondrian-tiny"),
        ("mlx-community/Qwen2.5-VL-3B-Instruct-4bit", "Qwen2.5-VL-3B-Instruct-4bit"),
        ("/models/my model (v2)/", "my-model-v2"),
        ("..", "model"),
        ("モデル", "model"),
        ("x" * 300, "x" * 63),
    ],
    ids=["embedded", "Hugging Face", "folder", "dots", "other letters", "long"],
)
def test_model_id_comes_from_the_model(model: str, model_id: str) -> None:
    """The id is the last part of the model's path or name, safe in a URL."""
    settings = load({"model": model}, {})
    assert settings.model_id == model_id
    assert settings.model_name == f"models/{model_id}"


def test_model_id_can_be_given() -> None:
    """A given id stands, whatever the model is called."""
    assert load({"model": "a/b"}, {"MONDRIAN_MODEL_ID": "c"}).model_name == "models/c"


def test_the_embedded_model_is_found() -> None:
    """Without a model the engine loads the one that comes with Mondrian."""
    assert (embedded_model() / "config.json").is_file()
    assert load({}, {}).model_source == str(embedded_model())
    assert load({"model": "a/b"}, {}).model_source == "a/b"


def test_the_largest_allowed_request_fits_a_message() -> None:
    """Images and both texts of the most bytes leave room for the rest of the message."""
    settings = Settings()
    texts = 2 * 4 * settings.max_prompt_characters
    assert settings.max_message_bytes >= settings.max_request_image_bytes + texts + 100_000


def test_every_setting_is_described() -> None:
    """Each has a sentence, and names itself the same way in all sources."""
    for setting in describe():
        assert setting.description.endswith("."), setting.name
        assert setting.flag == "--" + setting.name.replace("_", "-")
        assert setting.variable == "MONDRIAN_" + setting.name.upper()
    assert {setting.name for setting in describe()} == set(Settings.model_fields)


def test_defaults_keep_their_own_bounds() -> None:
    """Every default that can be written down is accepted when it is."""
    written = {setting.name: setting.default for setting in describe() if setting.default is not None}
    assert load(written, {}) == Settings()
