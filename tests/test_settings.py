"""Settings come from CDS_* variables once; an unknown name or a value that does not fit refuses."""

import re
from ipaddress import ip_network
from pathlib import Path

import certifi
import pytest

from cds_service.config import Settings, fixtures_dir, read_settings
from cds_service.errors import ContentError
from cds_service.rates import Rate

ROOT = Path(__file__).resolve().parents[1]


def test_without_variables_the_settings_are_safe() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert settings.hooks_dir == ROOT / "hooks"
    assert (settings.open, settings.fhir_servers, settings.site_file) == (False, (), None)
    assert settings.topic_modes == {}
    assert 0 < settings.fetch_seconds <= 10
    assert 1_000_000 <= settings.max_body_bytes <= 100_000_000


def test_the_synthetic_patients_lie_beside_the_content() -> None:
    assert fixtures_dir() == ROOT / "fixtures"


EACH: list[tuple[str, str, str, object]] = [
    ("CDS_HOOKS_DIR", str(ROOT / "hooks"), "hooks_dir", ROOT / "hooks"),
    ("CDS_SITE_FILE", __file__, "site_file", Path(__file__)),
    ("CDS_FHIR_SERVERS", "https://a/fhir", "fhir_servers", ("https://a/fhir",)),
    ("CDS_FHIR_SERVERS", "https://a https://b", "fhir_servers", ("https://a", "https://b")),
    ("CDS_FHIR_SERVERS", "https://a,https://b ", "fhir_servers", ("https://a", "https://b")),
    ("CDS_FETCH_SECONDS", "0.5", "fetch_seconds", 0.5),
    ("CDS_FETCH_SECONDS", "10", "fetch_seconds", 10.0),
    ("CDS_ANSWER_SECONDS", "4.5", "answer_seconds", 4.5),
    ("CDS_PEER_RATE", "1200/minute", "peer_rate", Rate(1200, "minute")),
    ("CDS_PEER_RATE", "off", "peer_rate", None),
    ("CDS_PROXIES", "10.0.0.0/8", "proxies", (ip_network("10.0.0.0/8"),)),
    ("CDS_PROXIES", "::1 10.0.0.7", "proxies", tuple(map(ip_network, ("::1", "10.0.0.7")))),
    ("CDS_CA_BUNDLE", certifi.where(), "ca_bundle", Path(certifi.where())),
    ("CDS_HTTPS_PROXY", "http://proxy.example:3128/", "https_proxy", "http://proxy.example:3128"),
    ("CDS_HTTPS_PROXY", "http://u:p@proxy:3128", "https_proxy", "http://u:p@proxy:3128"),
    ("CDS_MAX_BODY_BYTES", "1024", "max_body_bytes", 1024),
    ("CDS_CORS_ORIGINS", "https://ehr.example", "cors_origins", ("https://ehr.example",)),
    ("CDS_PUBLIC_URL", "https://cds.example/alp/", "public_urls", ("https://cds.example/alp",)),
    ("CDS_PUBLIC_URL", "https://a https://b/", "public_urls", ("https://a", "https://b")),
    ("CDS_CLIENTS_FILE", __file__, "clients_file", Path(__file__)),
    ("CDS_PROTECT_DISCOVERY", "1", "protect_discovery", True),
    ("CDS_STORE", "sqlite:////srv/cds.sqlite", "store_url", "sqlite:////srv/cds.sqlite"),
    ("CDS_STORE", "postgresql://cds@db/cds", "store_url", "postgresql://cds@db/cds"),
    ("CDS_PATIENT_SECRET_FILE", __file__, "patient_secret", Path(__file__).read_bytes()),
    ("CDS_OPEN", "1", "open", True),
    ("CDS_OPEN", "0", "open", False),
    (
        "CDS_TOPIC_MODES",
        "lowAlpPersistent=off *=shadow",
        "topic_modes",
        {"lowAlpPersistent": "off", "*": "shadow"},
    ),
    ("CDS_AUDIT_FILE", f"{ROOT}/audit.ndjson", "audit_file", f"{ROOT}/audit.ndjson"),
    ("CDS_AUDIT_FILE", "-", "audit_file", "-"),
    ("CDS_LOG_LEVEL", "DEBUG", "log_level", "debug"),
    ("CDS_METRICS_ADDRESS", "127.0.0.1:9464", "metrics_address", ("127.0.0.1", 9464)),
    ("CDS_METRICS_ADDRESS", "[::1]:9464", "metrics_address", ("::1", 9464)),
    ("CDS_DEMO_URL", "http://127.0.0.1:8000", "demo_url", "http://127.0.0.1:8000"),
    ("CDS_DEMO_PAGE_SIZE", "5", "demo_page_size", 5),
]


@pytest.mark.parametrize(("name", "text", "member", "value"), EACH)
def test_each_variable_sets_one_setting_and_no_other(
    name: str, text: str, member: str, value: object
) -> None:
    settings = read_settings({name: text})
    assert getattr(settings, member) == value
    others = [x for x in Settings.__dataclass_fields__ if x != member]
    assert [getattr(settings, x) for x in others] == [getattr(Settings(), x) for x in others]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CDS_HOOKS_DIR", "/no/such/folder"),
        ("CDS_HOOKS_DIR", __file__),
        ("CDS_SITE_FILE", "/no/such/file.toml"),
        ("CDS_SITE_FILE", str(ROOT)),
        ("CDS_FHIR_SERVERS", "not a url"),
        ("CDS_FHIR_SERVERS", "ftp://ehr.example/fhir"),
        ("CDS_FETCH_SECONDS", "soon"),
        ("CDS_FETCH_SECONDS", "0"),
        ("CDS_FETCH_SECONDS", "-1"),
        ("CDS_FETCH_SECONDS", "3600"),
        ("CDS_FETCH_SECONDS", "nan"),
        ("CDS_FETCH_SECONDS", "inf"),
        ("CDS_ANSWER_SECONDS", "0"),
        ("CDS_PEER_RATE", "on"),
        ("CDS_PEER_RATE", "50"),
        ("CDS_PROXIES", "10.0.0.1/8"),
        ("CDS_PROXIES", "proxy.example"),
        ("CDS_CA_BUNDLE", "/no/such/file.pem"),
        ("CDS_CA_BUNDLE", __file__),
        ("CDS_HTTPS_PROXY", "proxy.example:3128"),
        ("CDS_HTTPS_PROXY", "https://proxy.example:3128"),
        ("CDS_HTTPS_PROXY", "socks5://proxy.example"),
        ("CDS_HTTPS_PROXY", "http://proxy.example/path"),
        ("CDS_MAX_BODY_BYTES", "1023"),
        ("CDS_MAX_BODY_BYTES", "20 MB"),
        ("CDS_MAX_BODY_BYTES", "1e6"),
        ("CDS_MAX_BODY_BYTES", "-5000"),
        ("CDS_PUBLIC_URL", "cds.example"),
        ("CDS_PUBLIC_URL", "javascript:alert(1)"),
        ("CDS_PUBLIC_URL", "https://user@cds.example"),
        ("CDS_PUBLIC_URL", "https://cds.example/?x=1"),
        ("CDS_PUBLIC_URL", "https://cds.example/ x"),
        ("CDS_PUBLIC_URL", "https://cds.example http:/b"),
        ("CDS_CLIENTS_FILE", "/no/such/file.toml"),
        ("CDS_PROTECT_DISCOVERY", "on"),
        ("CDS_STORE", "sqlite://"),
        ("CDS_STORE", "sqlite:///:memory:"),
        ("CDS_STORE", "mysql://cds@db/cds"),
        ("CDS_STORE", "cds.sqlite"),
        ("CDS_PATIENT_SECRET_FILE", "/no/such/secret"),
        ("CDS_CA_BUNDLE", str(ROOT)),
        ("CDS_HTTPS_PROXY", "proxy.example:3128"),
        ("CDS_OPEN", "yes"),
        ("CDS_OPEN", "true"),
        ("CDS_TOPIC_MODES", "lowAlpPersistent"),
        ("CDS_TOPIC_MODES", "a=on b"),
        ("CDS_AUDIT_FILE", "/no/such/folder/audit.ndjson"),
        ("CDS_LOG_LEVEL", "loud"),
        ("CDS_METRICS_ADDRESS", "9464"),
        ("CDS_METRICS_ADDRESS", ":9464"),
        ("CDS_METRICS_ADDRESS", "127.0.0.1:0"),
        ("CDS_METRICS_ADDRESS", "127.0.0.1:65536"),
        ("CDS_METRICS_ADDRESS", "127.0.0.1:http"),
        ("CDS_TOPIC_MODES", "=on"),
        ("CDS_TOPIC_MODES", "lowAlpPersistent=loud"),
        ("CDS_DEMO_PAGE_SIZE", "many"),
        ("CDS_DEMO_PAGE_SIZE", "0"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ContentError) as refused:
        read_settings({name: text})
    assert (refused.value.file, refused.value.key) == ("environment", name)


@pytest.mark.parametrize(("size", "fits"), [(0, False), (31, False), (32, True)])
def test_a_secret_that_could_be_guessed_is_refused(tmp_path: Path, size: int, fits: bool) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"\n" * size)
    environ = {"CDS_PATIENT_SECRET_FILE": str(file)}
    if fits:
        assert read_settings(environ).patient_secret == b"\n" * size
        assert "\\n" not in repr(read_settings(environ))
    else:
        with pytest.raises(ContentError, match="fewer than 32 bytes"):
            read_settings(environ)


def test_a_proxy_that_does_not_fit_is_not_quoted_with_its_password() -> None:
    with pytest.raises(ContentError) as refused:
        read_settings({"CDS_HTTPS_PROXY": "https://user:s3cret@proxy:3128"})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("name", ["CDS_HOOK_DIR", "CDS_", "CDS_open", "CDS_FHIR_SERVER", "CDS_X"])
def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(name: str) -> None:
    with pytest.raises(ContentError, match=r"CDS_HOOKS_DIR.*CDS_FETCH_SECONDS") as refused:
        read_settings({name: "1", "CDS_OPEN": "1"})
    assert refused.value.key == name


def test_a_misspelt_name_is_told_the_nearest() -> None:
    with pytest.raises(ContentError, match=r"did you mean CDS_FHIR_SERVERS\?"):
        read_settings({"CDS_FHIR_SERVER": "https://a"})


@pytest.mark.parametrize("name", ["CDS_SITE_FILE", "CDS_HOOKS_DIR"])
def test_a_file_that_is_missing_is_named_as_it_was_given(name: str) -> None:
    with pytest.raises(ContentError, match=r"\.\./sites/ours is no f"):
        read_settings({name: "../sites/ours"})


def test_every_variable_that_there_is_is_tried_above() -> None:
    with pytest.raises(ContentError) as refused:
        read_settings({"CDS_X": "1"})
    known = re.findall(r"CDS_[A-Z_]+", refused.value.why.partition("there are")[2])
    tried = sorted({row[0] for row in EACH})
    assert sorted(known) == [x for x in tried if not x.startswith("CDS_DEMO_")]
    assert len(tried) == len(known) + 2  # what `demo` sets is offered to nobody
    assert {row[2] for row in EACH} == set(Settings.__dataclass_fields__)


def test_variables_of_others_and_empty_ones_say_nothing() -> None:
    environ = {"PATH": "/bin", "CDSX": "1", "XCDS_OPEN": "1", "cds_open": "1", "CDS_OPEN": ""}
    assert read_settings(environ) == Settings()


def test_the_environment_of_the_process_is_read_when_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CDS_FETCH_SECONDS", "7")
    assert read_settings().fetch_seconds == 7
    monkeypatch.setenv("CDS_FETCHSECONDS", "7")
    with pytest.raises(ContentError, match="CDS_FETCHSECONDS"):
        read_settings()
