"""Mistakes that people make, each told at its place, with what they most likely meant."""

from __future__ import annotations

import pytest

from iceprod_p2p.steering.commands import check_answer

TRAYS = "  trays: [{modules: [{src: run.py}]}]\n"
NEEDS = "tasks:\n- name: a\n  requirements: {%s}\n" + TRAYS

# Name of the file, its text, line and column of the fault, a word of what is said, the suggestion.
MISTAKES: list[tuple[str, str, int, int, str, str]] = [
    ("x.json", '{"version": 3.2, "tasks": [\n {"name": "a",},\n]}', 2, 15, "a name", "no comma before }"),
    ("x.json", '{"version": 3.2, "tasks": [1,]}', 1, 30, "a JSON value", "no comma before ]"),
    ("x.json", "{'version': 3.2}", 1, 2, "double quotes", 'double quotes: "'),
    ("x.json", "{\u201cversion\u201d: 3.2}", 1, 2, "double quotes", 'straight quotes: "'),
    ("x.json", '{"version": 3.2, // note\n "tasks": []}', 1, 18, "a name", "no comments, which JSON does not have"),
    ("x.json", '{"version": 3.2\n "tasks": []}', 2, 2, "a comma", ""),
    ("x.json", '{"version": 3.2, "tasks": [', 1, 28, "the end", "what closes the open brackets"),
    ("x.json", '{"version": 3.2, "x": None}', 1, 23, "None", "null"),
    ("x.json", '{"version": 3.2, "x": True}', 1, 23, "True", "true"),
    ("x.json", '{"version": 03.2}', 1, 14, "a comma", "a number without a zero before it"),
    ("x.json", '{"version": 3.2, "x": NaN}', 1, 23, "a finite number", ""),
    ("x.json", '{"x": "a\nb"}', 1, 9, "control character", r"\n"),
    ("x.json", '{"x": "a\\y"}', 1, 9, "escape", "two backslashes for one"),
    ("x.json", '{"version": 3.2, "version": 3.1}', 1, 18, "second time", ""),
    ("x.yaml", "tasks:\n- name: a\n\ttrays: []\n", 3, 1, "tab", "blanks instead of the tab"),
    ("x.yaml", "tasks:\n\t- name: a\n", 2, 1, "token", "blanks instead of the tab"),
    ("x.yaml", "tasks:\n- name: a\n  trays: [{modules: [{src: x}]\n- name: b\n", 4, 1, "at 3:11", "} to close"),
    ("x.yaml", "tasks:\n- name: a: b\n", 2, 10, "mapping values", "quotes around a text with a colon"),
    ("x.yaml", "tasks:\n- name: @a\n", 2, 9, "token", "quotes around a text that begins with @"),
    ("x.yaml", 'tasks:\n- name: "a\n', 3, 1, "at 2:9", "the quote that closes the text"),
    ("x.yaml", "tasks:\n- nmae: a\n" + TRAYS, 2, 3, "nmae", "name"),
    ("x.yaml", "\ufefftasks:\r\n- nmae: a\r\n" + TRAYS.replace("\n", "\r\n"), 2, 3, "nmae", "name"),
    ("x.yaml", "task: []\n", 1, 1, "task", "tasks"),
    ("x.yaml", "tasks:\n- name: \u201ca\u201d\n" + TRAYS, 2, 9, "typographic quotes", "a"),
    ("x.yaml", "tasks:\n- name: a\n  trays: [{iter: 2, modules: [{src: x}]}]\n", 3, 12, "iter", "iterations"),
    ("x.yaml", "tasks:\n- name: a\n  depends: [a]\n" + TRAYS, 3, 12, "a -> a", ""),
    ("x.yaml", "tasks:\n- name: gen1\n" + TRAYS + "- name: b\n  depends: [gne1]\n" + TRAYS, 5, 13, "", "gen1"),
    ("x.yaml", "tasks:\n- name: a\n" + TRAYS + "- name: a\n" + TRAYS, 4, 9, "tasks[0]", ""),
    ("x.yaml", NEEDS % "memory: -1", 3, 26, "0 or more", ""),
    ("x.yaml", NEEDS % "memory: 2Gigs", 3, 26, "512MB", ""),
    ("x.yaml", NEEDS % "time: 2 weeks", 3, 24, "90min", ""),
    ("x.yaml", NEEDS % "memroy: 2", 3, 18, "memroy", "memory"),
    ("x.yaml", NEEDS % "cpu: two", 3, 23, "a whole number", ""),
    ("x.yaml", "tasks:\n- name: a\n  data: [{movement: in, remote: x}]\n" + TRAYS, 3, 21, "output", "input"),
    ("x.yaml", "tasks:\n- name: a\n", 2, 3, "trays", ""),
    ("x.xml", "<configuration><taks name='a'/></configuration>", 1, 16, "taks", "task"),
    ("x.xml", "<configuration><description>a & b</description></configuration>", 1, 32, "well-formed", "&amp;"),
    ("x.xml", "<configuration><description>&nbsp;</description></configuration>", 1, 29, "entity", "the character"),
    ("x.xml", "<configuration>\n<task name='a'>\n<tray>\n</task></configuration>", 4, 3, "<tray> of 3:1", "</tray>"),
    ("x.xml", "<configuration version=3/>", 1, 24, "well-formed", "quotes around the value"),
    ("x.xml", "<configuration version=\u201c3\u201d/>", 1, 24, "well-formed", "straight quotes"),
    ("x.xml", "<configuration><task name='a<b'/></configuration>", 1, 29, "well-formed", "&lt;"),
    ("x.xml", "<configuration/><configuration/>", 1, 17, "junk", "one <configuration>"),
    ("x.xml", "<Configuration/>", 1, 1, "Configuration", "configuration"),
    ("x.xml", '<!DOCTYPE configuration SYSTEM "iceprod.v1.dtd"><configuration/>', 1, 48, "v1", "iceprod.v3.dtd"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "line", "column", "words", "suggestion"), MISTAKES)
def test_a_mistake_is_told_at_its_place_with_what_was_meant(
    name: str, text: str, line: int, column: int, words: str, suggestion: str
) -> None:
    answer = check_answer(text, name=name)
    assert not answer["valid"]
    fault = answer["faults"][0]
    assert (fault["file"], fault["line"], fault["column"]) == (name, line, column)
    assert words in f"{fault['found']} {fault['allowed']} {fault['path']}"
    assert fault["suggestion"].startswith(suggestion) and bool(fault["suggestion"]) == bool(suggestion)


def test_bytes_that_are_no_text_have_a_line_and_a_column() -> None:
    (fault,) = check_answer(b"<configuration>\n <a>\xff</a></configuration>", name="x.xml")["faults"]
    assert (fault["line"], fault["column"]) == (2, 5)


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    text = (
        "tasks:\n- nmae: a\n  depnds: [x]\n  requirements: {memory: -1, cpu: x, tim: 2}\n"
        "  trays: [{iter: 2, modules: [{scr: x}]}]\n"
    )
    answer = check_answer(text, name="x.yaml")
    assert [(fault["line"], fault["suggestion"]) for fault in answer["faults"]] == [
        (2, "name"),
        (3, "depends"),
        (4, ""),
        (4, ""),
        (4, "time"),
        (5, "iterations"),
        (5, ""),
        (5, "src"),
    ]


def test_what_is_missing_is_said_once() -> None:
    answer = check_answer('{"version": 3.2, "description": "", "tasks": [{"name": "a"}]}', name="x.json")
    assert [fault["found"] for fault in answer["faults"]] == ['no "trays"']


def test_a_short_name_of_a_class_that_nobody_knows_is_a_warning() -> None:
    text = (
        "tasks:\n- name: a\n  classes: [{name: mine, src: mine.py}]\n"
        "  trays: [{modules: [{class: Executabel}, {class: mine}, {class: a.B}, {class: Site}, {class: Merge}]}]\n"
    )
    asked: list[int] = []

    def installed() -> tuple[str, ...]:
        asked.append(1)
        return ("Site",)

    answer = check_answer(text, name="x.yaml", classes=("Executable", "Merge"), installed=installed)
    assert answer["valid"] and asked == [1]
    assert answer["warnings"] == [
        'tasks[0].trays[0].modules[0].class: no module is called "Executabel" here: did you mean Executable?'
    ]
