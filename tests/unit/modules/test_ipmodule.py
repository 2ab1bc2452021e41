"""The two forms of a module, their parameters, and old modules under their old names."""

from __future__ import annotations

import sys
from typing import Annotated

import pytest

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.modules import IPModule, ModuleContext, Unit, legacy, module_function
from iceprod_p2p.modules.function import FunctionModule
from iceprod_p2p.modules.parameters import ParameterType, convert, parameter_type
from iceprod_p2p.modules.registry import BUILT_IN, create, inspect_module, list_modules, modules_in


class Sample(IPModule):
    def __init__(self):
        super().__init__()
        self.AddParameter("NEvents", "events to make", 10, "int")
        self.AddParameter("anything", "no type", 0)

    def Execute(self, stats):
        stats["n"] = self.GetParameter("nevents")
        return 0


def test_parameter_names_do_not_depend_on_case_and_undeclared_ones_are_refused():
    module = Sample()
    module.SetParameter("NEVENTS", "25")
    assert module.GetParameter("nevents") == 25
    for call in (lambda: module.GetParameter("nevent"), lambda: module.SetParameter("nevent", 1)):
        with pytest.raises(BadInput, match=r"no parameter 'nevent' \(did you mean 'NEvents'\?\)"):
            call()


def test_a_declared_type_is_kept_and_an_inferred_one_does_not_bind():
    module = Sample()
    with pytest.raises(BadInput, match="'NEvents'"):
        module.SetParameter("nevents", "many")
    module.SetParameter("anything", 1.5)
    assert module.GetParameter("anything") == 1.5
    module.SetParameter("anything", "7")
    assert module.GetParameter("anything") == 7
    module.SetParameter("anything", "many")
    assert module.GetParameter("anything") == "many"


def test_show_parameters_lists_name_value_and_description_with_execute_first():
    shown = Sample().ShowParameters()
    assert [name for name, _, _ in shown] == ["execute", "NEvents", "anything"]
    assert shown[1] == ("NEvents", 10, "events to make")


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        ("bool", "True", True),
        ("bool", 0, False),
        ("bool", "off", False),
        ("int", "12", 12),
        ("int", 3.0, 3),
        ("int", "1e3", 1000),
        ("float", "1e3", 1000.0),
        ("float", 2, 2.0),
        ("string", 5, "5"),
        ("string", True, "true"),
        ("json", '{"a": [1]}', {"a": [1]}),
        ("int_list", "1, 2,3", [1, 2, 3]),
        ("float_list", "[1, 2.5]", [1.0, 2.5]),
        ("string_list", ["a", 1], ["a", "1"]),
        ("bool_list", [True, "no"], [True, False]),
        ("string_list", "", []),
    ],
)
def test_values_become_the_declared_type(kind, value, result):
    found = convert(ParameterType(kind), value)
    assert found == result and type(found) is type(result)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bool", 2),
        ("bool", "maybe"),
        ("int", 1.5),
        ("int", True),
        ("int", "1e400"),
        ("int", None),
        ("float", "nan"),
        ("float", "inf"),
        ("float", True),
        ("string", [1]),
        ("json", "{"),
        ("int_list", "1,x"),
        ("int_list", 5),
        ("int", "9" * 5_000),
    ],
)
def test_values_that_lose_their_meaning_are_refused(kind, value):
    with pytest.raises(ValueError):
        convert(ParameterType(kind), value)


def test_types_have_the_names_of_steering_files_and_of_python():
    assert parameter_type("double") is parameter_type("FLOAT") is parameter_type(float) is ParameterType.FLOAT
    assert parameter_type(list[int]) is ParameterType.INT_LIST
    assert parameter_type(None) is None
    with pytest.raises(BadInput, match="'complex' is no parameter type"):
        parameter_type("complex")


@module_function
def generate(
    events: Annotated[int, "events to generate"],
    energy_min: Annotated[float, "lowest energy", Unit("GeV")] = 1e3,
    *,
    flags: list[str] = [],  # noqa: B006
    context: ModuleContext,
) -> dict[str, float]:
    """Generate events."""
    context.statistic("early", 1)
    return {"events": events, "flags": len(flags)}


def test_a_typed_function_is_a_module_and_stays_a_function():
    module = FunctionModule(generate)
    module.SetParameters(("Events", "3"), ("flags", "a,b"))
    stats: dict[str, float] = {}
    assert module.Execute(stats) == 0
    assert stats == {"events": 3, "flags": 2}
    assert module.context.statistics == {"early": 1.0}
    assert generate(2, context=ModuleContext()) == {"events": 2, "flags": 0}
    specs = {spec.name: spec for spec in module.parameter_specs()}
    assert specs["events"].required and specs["events"].description == "events to generate"
    assert specs["energy_min"].unit == "GeV" and specs["energy_min"].default == 1e3


def test_a_function_whose_parameters_have_no_types_is_refused_where_it_is_defined():
    with pytest.raises(BadInput, match="'events' has no type"):

        @module_function
        def untyped(events):
            return None

    with pytest.raises(BadInput, match="cannot be given by name"):

        @module_function
        def variadic(*events: int):
            return None


def test_every_built_in_module_can_be_inspected():
    specs = list_modules()
    assert {spec.name for spec in specs} >= set(BUILT_IN)
    assert not [spec.fault for spec in specs if spec.fault]
    for spec in specs:
        assert spec.description and all(parameter.description for parameter in spec.parameters), spec.name


def test_modules_are_found_by_short_name_dotted_path_and_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from iceprod_p2p.modules import IPModule\nclass Mine(IPModule):\n    '''It is mine.'''\n"
    )
    assert inspect_module(f"{path}:Mine").description == "It is mine."
    assert inspect_module("Mine", str(path)).origin == str(path)
    assert inspect_module("mine.Mine", str(path)).parameters[0].name == "execute"
    assert modules_in(path) == ("Mine",)
    assert type(create("iceprod_p2p.modules.executable.Executable")) is type(create("Executable"))
    with pytest.raises(NotFound, match="did you mean 'Mine'"):
        create("Mime", str(path))
    with pytest.raises(NotFound, match="did you mean 'Transfer'"):
        create("Transfers")


def test_a_module_whose_own_import_is_missing_says_which(tmp_path):
    path = tmp_path / "needs.py"
    path.write_text("import a_package_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        create("Needs", str(path))


def test_an_installed_module_is_found_by_its_entry_point(tmp_path, monkeypatch):
    (tmp_path / "plug.py").write_text(
        "from iceprod_p2p.modules import IPModule\nclass Plug(IPModule):\n    '''P.'''\n"
    )
    info = tmp_path / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    points = "[iceprod_p2p.modules]\nplug = plug:Plug\nbroken = nowhere:Gone\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    specs = {spec.name: spec for spec in list_modules()}
    assert specs["plug"].origin == "entry point" and specs["plug"].description == "P."
    assert "nowhere" in specs["broken"].fault


@pytest.fixture
def old_names(monkeypatch):
    before = set(sys.modules)
    legacy.install()
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


OLD = """
from iceprod.modules import ipmodule
import ipmodule as plain
from icecube.simprod.ipmodule import ParsingModule

class Old(plain.IPBaseClass):
    def __init__(self):
        ipmodule.IPBaseClass.__init__(self)
        self.parameters['arrang'] = -119.
        self.AddParameter('InFile', 'a file', '')

    def Execute(self, stats):
        if not ipmodule.IPBaseClass.Execute(self, stats): return 0
        stats['length'] = len(self.GetParameter('infile'))
        stats['arrang'] = self.GetParameter('arrang')
        assert self.infile == self.GetParameter('INFILE')
        self.Finish()
        return 0

class Options(ParsingModule):
    def __init__(self):
        ParsingModule.__init__(self)
        self.AddParameter('events', 'how many', 1, explicit_type='int')
        self.AddParameter('mode', 'a choice', 'a', 'choice')

    def Execute(self, stats):
        if not ParsingModule.Execute(self, stats): return 0
        stats['events'] = self.GetParameter('events')
        return 0

def main(options, stats):
    stats['doubled'] = 2 * options['number']

class Wrapped(ipmodule.FromOptionParser):
    def __init__(self):
        import optparse
        parser = optparse.OptionParser()
        parser.add_option('--number', type='int', default=4, help='a number')
        ipmodule.FromOptionParser.__init__(self, parser, main)
"""


def test_modules_written_for_old_iceprod_run_as_they_are(tmp_path, old_names):
    path = tmp_path / "old.py"
    path.write_text(OLD)
    expected = {
        "Old": ({"INFILE": "abc"}, {"length": 3, "arrang": -119.0}),
        "Options": ({"events": "5"}, {"events": 5}),
        "Wrapped": ({"number": 6}, {"doubled": 12}),
    }
    for name, (parameters, statistics) in expected.items():
        module = create(name, str(path))
        for parameter, value in parameters.items():
            module.SetParameter(parameter, value)
        stats: dict[str, float] = {}
        assert module.Execute(stats) == 0
        assert stats == statistics, name
        module.SetParameter("execute", False)
        stats.clear()
        assert module.Execute(stats) == 0 and not stats


def test_a_file_with_its_own_base_class_runs_too(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "class IPBaseClass:\n    def SetParameter(self, name, value): self.value = value\n"
        "class Own(IPBaseClass):\n    def Execute(self, stats):\n        stats['v'] = self.value\n        return 0\n"
    )
    module = create("Own", str(path))
    module.SetParameter("v", 3)
    stats: dict[str, float] = {}
    assert module.Execute(stats) == 0 and stats == {"v": 3}
