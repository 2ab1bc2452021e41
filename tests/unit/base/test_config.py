"""site.toml is read whole or refused with every fault, its line and its remedy."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from iceprod_p2p.base import config, config_text
from iceprod_p2p.base.config_people import ROLES
from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.model.person import Role

LEAST = """\
[node]
site = "madison"
id = "madison-1"
cluster = "icecube"
data_dir = "/tmp/iceprod"
"""


def test_a_short_file_gets_every_default() -> None:
    site = config.parse(LEAST)
    assert site.node.listen == "127.0.0.1:4410"
    assert site.node.advertise == site.node.listen
    assert site.queue.classes == (config.ResourceClass("cpu"),)
    assert site.system.scratch_dir == Path("/tmp/iceprod/scratch")


def test_every_fault_is_named_at_once_with_its_line_and_a_fix() -> None:
    text = LEAST.replace('"icecube"', "7") + (
        'lissten = "127.0.0.1:1"\n'
        "\n[queue]\ngrid_jobs_max = -1\n"
        '\n[[queue.class]]\nname = "a"\ncpus = "many"\n'
        '\n[[queue.class]]\nname = "b"\nmemory = 5\n'
        "\n[environmnt]\nx = 1\n"
    )
    with pytest.raises(ConfigError) as caught:
        config.parse(text)
    assert caught.value.faults == (
        "line 4: node.cluster: 7 is not a text; put it in quotes",
        "line 6: node.lissten: there is no such setting; did you mean listen?",
        "line 9: queue.grid_jobs_max: -1 is not within 0 to 100000",
        "line 13: queue.class.0.cpus: 'many' is not a whole number",
        "line 17: queue.class.1.memory: there is no such setting; did you mean memory_mib?",
        "line 19: environmnt: there is no such section; did you mean environment?",
    )


def test_settings_that_contradict_each_other_are_faults() -> None:
    with pytest.raises(ConfigError, match="must be at most half of site_grace_s"):
        config.parse(LEAST + "heartbeat_s = 20\nsite_grace_s = 30\n")
    with pytest.raises(ConfigError, match="there are two classes 'a'"):
        config.parse(LEAST + '[[queue.class]]\nname = "a"\n[[queue.class]]\nname = "a"\n')


@pytest.mark.parametrize("text", ["[node", "x = ", "a" * 10, "[[[[", "node = 3\nqueue = []\nsystem = 1"])
def test_a_broken_file_is_one_clear_error(text: str) -> None:
    with pytest.raises(ConfigError):
        config.parse(text)


def test_a_missing_file_and_a_file_that_is_no_text_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(tmp_path / "bytes.toml")


def test_emulated_gpus_are_declared_as_an_attribute_and_site_attributes_reach_every_class() -> None:
    site = config.parse(
        LEAST
        + '[system]\nattributes = ["ice"]\n[[queue.class]]\nname = "g"\ngpus = 1\ngpu_emulation = true\n'
    )
    assert site.queue.classes[0].attributes == (config.GPU_EMULATION, "ice")


def test_the_written_file_reads_back_as_given_and_shows_what_it_leaves_alone() -> None:
    node = {"site": "s", "id": "s-1", "cluster": "c", "data_dir": "/d"}
    text = config_text.new_text(
        {
            "node": node,
            "queue": {"class": [{"name": "a", "slots": 2}, {"name": "b", "gpus": 1, "gpu_emulation": True}]},
            "system": {"parameters": {"seed base": 'a "b"'}},
        }
    )
    site = config.parse(text)
    assert [entry.slots for entry in site.queue.classes] == [2, 1]
    assert site.system.parameters == {"seed base": 'a "b"'}
    assert '# listen = "127.0.0.1:4410"' in text
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line else line
        for line in text.splitlines()
    )
    assert tomllib.loads(uncommented)["node"]["calls_max"] == site.node.calls_max
    assert config_text.shown(site)["node"]["data_dir"] == "/d"


MISTAKES = {
    "quotes": ("site = madison", 'site = "madison"', "line 2: Invalid value: site = madison"),
    "a quote": ('site = "madison', 'site = "madison"', "line 2: Illegal character"),
    "twice": ('id = "madison-1"\nid = "x"', 'id = "madison-1"', "line 4: Cannot overwrite a value"),
    "capitals": ('site = "Madison"', 'site = "madison"', "line 2: node.site: 'Madison' is no name"),
    "relative": (
        'data_dir = "data"',
        'data_dir = "/tmp/iceprod"',
        "line 5: node.data_dir: 'data' is not an abs",
    ),
}
ADDED = {
    "port": ('listen = "127.0.0.1:99999"', "line 6: node.listen: '127.0.0.1:99999' is no port: 1 to 65535"),
    "no port": ('listen = "node1"', "line 6: node.listen: 'node1' is no address: write host:port"),
    "only a port": ('listen = "4410"', "line 6: node.listen: '4410' is no address"),
    "everywhere": (
        'listen = "0.0.0.0:4410"',
        "line 6: node.listen: is every address of this machine: say in adv",
    ),
    "one port": ('listen = "127.0.0.1:4411"', "must differ from listen"),
    "unit": ('heartbeat_s = "5 s"', "line 6: node.heartbeat_s: '5 s' is not a number"),
    "typo": (
        "hartbeat_s = 5",
        "line 6: node.hartbeat_s: there is no such setting; did you mean heartbeat_s?",
    ),
    "section": ("[que]", "line 6: que: there is no such section; did you mean queue?"),
    "sign": ("[queue]\ngrid_jobs_max = -2", "line 7: queue.grid_jobs_max: -2 is not within 0 to 100000"),
    "yes": (
        '[queue]\nshared_directory = "yes"',
        "line 7: queue.shared_directory: 'yes' is not true or false",
    ),
    "choice": (
        '[queue]\nisolation = "maybe"',
        "line 7: queue.isolation: 'maybe' is none of auto, none, required",
    ),
    "class": (
        "[queue.class]\nslots = 2",
        "line 6: queue.class: is not a list of 1 to 64 tables; write [[queue.class]]",
    ),
    "role": (
        '[directory.roles]\na = "boss"',
        "line 6: directory.roles: a = 'boss': 'boss' is none of viewer,",
    ),
    "ldap": (
        '[directory]\nurl = "ldap.example.org"',
        "line 7: directory.url: must begin with ldaps:// or ldap://",
    ),
    "http": ('[tokens]\nissuer = "http://x.org"', "line 7: tokens.issuer: must begin with https://"),
    "loud": ('[log]\nlevel = "LOUD"', "line 7: log.level: 'LOUD' is none of DEBUG, INFO, WARNING, ERROR"),
    "number": ("[environment.variables]\nOMP = 1", "line 6: environment.variables: OMP = 1 is not a text"),
    "array": ('[system]\nattributes = ["a"', "is not TOML: Unclosed array, at its end"),
}


@pytest.mark.parametrize("name", [*MISTAKES, *ADDED])
def test_a_mistake_that_people_make_is_told_with_its_line_and_cure(name: str) -> None:
    if name in MISTAKES:
        wrong, right, words = MISTAKES[name]
        text = LEAST.replace(right, wrong)
    else:
        wrong, words = ADDED[name]
        text = LEAST + wrong + "\n"
    with pytest.raises(ConfigError) as caught:
        config.parse(text, path=Path("my.toml"))
    assert words in caught.value.message and "my.toml" in caught.value.message
    assert caught.value.faults or caught.value.remedy, caught.value.message


def test_a_place_to_listen_everywhere_is_right_with_an_address_to_call() -> None:
    site = config.parse(LEAST + 'listen = "0.0.0.0:4410"\nadvertise = "node1.example.org:4410"\n')
    assert site.node.advertise == "node1.example.org:4410"


def test_the_roles_of_groups_are_those_of_people() -> None:
    assert tuple(role.value for role in Role) == ROLES
