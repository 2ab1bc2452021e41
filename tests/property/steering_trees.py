"""Random steering trees, as any of the three readers could have made them: one seed, one tree."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from typing import TypeVar

from iceprod_p2p.model.steering import (
    After,
    BatchOptions,
    ClassReference,
    Configuration,
    Data,
    DataType,
    Environment,
    Metadata,
    MetadataField,
    Module,
    Movement,
    Parameter,
    ParameterType,
    Project,
    Requirements,
    Resource,
    Steering,
    Task,
    Transfer,
    Tray,
    Value,
)
from iceprod_p2p.steering.texts import FORBIDDEN
from iceprod_p2p.steering.validate import value_fits
from iceprod_p2p.steering.values import make_parameter

_HARD = (
    *(
        "",
        "no",
        "on",
        "1e5",
        "007",
        "0x1F",
        "0o17",
        "~",
        "null",
        "true",
        "True",
        " lead",
        "trail ",
        "a: b",
        "# c",
    ),
    *(
        "<&>\"'",
        "]]>",
        "1:30",
        "2024-01-01",
        "=",
        "<<",
        "-",
        "- a",
        "? b",
        "'q'",
        '"q"',
        "a\n b\t\rc",
        "\u2028\x85",
    ),
    *(
        "\ufeff",
        "x\n",
        "\n",
        " ",
        "{}",
        "[1]",
        "&a",
        "*a",
        "!t",
        "%d",
        "@x",
        "`",
        "1_000",
        "+5",
        ".5",
        "5.",
        "é\u4e2d",
    ),
    *(
        "$steering(a::b)[1]",
        "$eval(2*$(job))",
        '$sprintf("%06d", $(job))',
        "\\$(x)",
        "1,$(x)",
        "\\",
        "\U0001f9ca",
    ),
    *("5@GeV", "1.5@m", "1,2,3", "[1, 2]", "-3", "2.50", "[$(x)]", "a,b", "1e400", "nan", ".inf", "0.1e-3"),
)
T = TypeVar("T")


class Trees:
    """Draws trees from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some(self, make: Callable[[], T], most: int, least: int = 0) -> tuple[T, ...]:
        return tuple(make() for _ in range(self.random.randint(least, most)))

    def text(self) -> str:
        if self.random.random() < 0.5:
            return self.random.choice(_HARD)
        points = self.random.choice((self.random.randrange(32, 127), self.random.randrange(160, 0x3000)))
        drawn = "".join(chr(points) for _ in range(self.random.randint(0, 6)))
        return "" if FORBIDDEN.search(drawn) else drawn

    def word(self) -> str:
        letters = "abcXYZ019_-:é$ "
        return self.random.choice("abc_é") + "".join(self.random.choice(letters) for _ in range(5)).rstrip()

    def names(self, most: int) -> list[str]:
        return sorted({self.word() for _ in range(self.random.randint(0, most))})

    def number(self) -> int | float:
        if self.random.random() < 0.5:
            return self.random.randint(-(10 ** self.random.randint(0, 30)), 10 ** self.random.randint(0, 30))
        drawn: float = struct.unpack("<d", self.random.randbytes(8))[0]
        return drawn if math.isfinite(drawn) else -0.0

    def value(self, depth: int = 0) -> Value:
        kind = self.random.randint(0, 6 if depth < 3 else 4)
        if kind == 5:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        if kind == 6:
            return self.object(depth + 1)
        return (None, self.random.random() < 0.5, self.number(), self.text(), self.text())[kind]

    def object(self, depth: int = 0) -> dict[str, Value]:
        return {self.text(): self.value(depth) for _ in range(self.random.randint(0, 3))}

    def parameter(self, name: str) -> Parameter:
        kind = self.random.choice([None, *ParameterType])
        made = make_parameter(name, self.value(), kind)
        if kind is ParameterType.ANY and not isinstance(made.value, str):
            made = make_parameter(name, self.text(), kind)
        return made if value_fits(made) else make_parameter(name, "$(other)", kind)

    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(self.parameter(name) for name in self.names(3))

    def batchsys(self) -> tuple[BatchOptions, ...]:
        chosen = self.random.sample(("*", "condor", "slurm"), self.random.randint(0, 2))
        return tuple(BatchOptions(name, self.parameters()) for name in chosen)

    def local(self) -> str:
        return self.random.choice((self.word(), "$steering(outfile)", "a/b.i3"))

    def compression(self) -> str:
        return self.random.choice(("", "none", "gz", "true"))

    def checksum(self) -> str:
        return self.random.choice(("", "", "md5:" + "0a" * 16, "sha256:" + "1b" * 32 + " adler32:0000abcd"))

    def resource(self) -> Resource:
        transfer = self.random.choice(list(Transfer))
        return Resource(self.text(), self.local(), self.compression(), transfer, self.text(), self.checksum())

    def data(self) -> Data:
        kind, movement = self.random.choice(list(DataType)), self.random.choice(list(Movement))
        transfer = self.random.choice(list(Transfer))
        shared = movement is Movement.INPUT and self.random.random() < 0.5
        return Data(
            self.text(), self.local(), kind, movement, transfer, self.compression(), shared, self.checksum()
        )

    def reference(self) -> ClassReference:
        texts = [self.text() for _ in range(5)]
        return ClassReference(
            texts[0], texts[1], texts[2], self.random.random() < 0.5, *texts[3:], "1234", "ab" * 32
        )

    def project(self) -> Project:
        return Project(self.text(), self.text())

    def environment(self) -> Environment | None:
        if self.random.random() < 0.5:
            return None
        platform = self.random.choice(("", "linux-x86_64", "RHEL_9_x86_64", "$system(platform)"))
        version = self.random.choice(("1.3", "V01-02", "$steering(version)"))
        return Environment("simulation", version, platform, "ab" * 32, self.text(), self.text())

    def args(self) -> str | list[Value] | dict[str, Value]:
        return self.random.choice((self.text(), [self.value() for _ in range(2)], self.object()))

    def module(self) -> Module:
        return Module(
            name=self.random.choice(("", self.word())),
            class_name=self.word(),
            src=self.text(),
            args=self.args(),
            env_shell=self.text(),
            env_clear=self.random.random() < 0.5,
            environment=self.environment(),
            parameters=self.parameters(),
            resources=self.some(self.resource, 1),
            data=self.some(self.data, 1),
            classes=self.some(self.reference, 1),
            projects=self.some(self.project, 1),
            configs=self.object(),
        )

    def tray(self) -> Tray:
        return Tray(
            name=self.random.choice(("", self.word())),
            iterations=self.random.choice((1, 0, 7, "$steering(n)")),
            environment=self.environment(),
            parameters=self.parameters(),
            modules=self.some(self.module, 2, 1),
            resources=self.some(self.resource, 1),
            data=self.some(self.data, 1),
            classes=self.some(self.reference, 1),
            projects=self.some(self.project, 1),
        )

    def amount(self, *texts: str) -> int | float | str | None:
        return self.random.choice(
            (None, self.random.randint(0, 64), self.random.random() * 10, 1e-310, *texts)
        )

    def requirements(self) -> Requirements:
        return Requirements(
            cpu=self.amount("$steering(cores)"),
            gpu=self.amount("$(gpus)"),
            memory=self.amount("$eval(1+1)", "512MB"),
            disk=self.amount("2 GB"),
            time=self.amount("90min"),
            os=self.some(self.word, 2),
            arch=self.text(),
            site=self.text(),
            attributes=self.some(self.word, 2),
            extra={name: self.value() for name in self.names(1)},
        )

    def tasks(self) -> tuple[Task, ...]:
        names = self.names(3)
        found: list[Task] = []
        # Those after a whole job or dataset last, and one for every job first.
        ranks = sorted((self.random.choice(list(After)) for _ in names), key=list(After).index)
        ranks[:1] = [After.PARENTS]
        for index, name in enumerate(names):
            found.append(
                Task(
                    name=name,
                    depends=tuple(names[: self.random.randint(0, index)]),
                    after=ranks[index],
                    requirements=self.requirements(),
                    batchsys=self.batchsys(),
                    parameters=self.parameters(),
                    trays=self.some(self.tray, 2, 1),
                    resources=self.some(self.resource, 1),
                    data=self.some(self.data, 2),
                    classes=self.some(self.reference, 1),
                    projects=self.some(self.project, 1),
                    task_files=self.random.random() < 0.5,
                    container=self.text(),
                    environment=self.environment(),
                    token_scopes={self.text(): self.text() for _ in range(2)},
                    extra={name: self.value() for name in self.names(1)},
                )
            )
        return tuple(found)

    def field(self, name: str) -> MetadataField:
        return MetadataField(name, self.text())

    def metadata(self) -> Metadata | None:
        person = MetadataField("Personnel", self.some(lambda: self.field("Email"), 2))
        dif = (self.field("Entry_ID"), self.field("Parameters"), self.field("Parameters"), person)
        project = MetadataField("Project", (self.field("Name"), self.field("Version")))
        plus = (self.field("Category"), project, project)
        return self.random.choice((None, Metadata(dif, plus), Metadata((), plus), Metadata()))

    def configuration(self) -> Configuration:
        return Configuration(
            version=self.random.choice(("3", "3.1", "3.2", "3.0", "2014a")),
            description=self.text(),
            parent_id=self.random.choice((None, 0, 20012, "d123")),
            iceprod_version=self.random.choice(("", "2.0", "1")),
            categories=self.some(self.text, 2),
            options=self.parameters(),
            steering=Steering(
                parameters=self.parameters(),
                system=self.parameters(),
                batchsys=self.batchsys(),
                resources=self.some(self.resource, 1),
                data=self.some(self.data, 1),
            ),
            tasks=self.tasks(),
            metadata=self.metadata(),
            extra={name: self.value() for name in self.names(1)},
        )
