"""A module: a class with parameters, which reports statistics."""

import math

from iceprod_p2p.modules import IPModule


class Judge(IPModule):
    """Compare a value with pi; fail when it is further off than the tolerance."""

    def __init__(self):
        super().__init__()
        self.AddParameter("infile", "the value to judge", "pi.txt", "string")
        self.AddParameter("outfile", "where to write the verdict", "judged.txt", "string")
        self.AddParameter("tolerance", "largest difference", 0.1, "float")

    def Execute(self, stats):
        if not super().Execute(stats):
            return 0
        with open(self.GetParameter("infile")) as file:
            value = float(file.read())
        stats["difference"] = difference = abs(value - math.pi)
        self.logger.info("pi is about %s, off by %.4f", value, difference)
        if difference > self.GetParameter("tolerance"):
            raise ValueError(f"{value} is off by {difference:.4f}")
        with open(self.GetParameter("outfile"), "w") as out:
            out.write(f"{value} {difference:.4f}\n")
        return 0
