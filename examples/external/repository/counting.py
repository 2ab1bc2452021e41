"""A module as it might lie in a repository of its own."""

from iceprod_p2p.modules import IPModule


class Count(IPModule):
    """Count to a number."""

    def __init__(self):
        super().__init__()
        self.AddParameter("upto", "where to stop", 10, "int")

    def Execute(self, stats):
        if not super().Execute(stats):
            return 0
        stats["sum"] = sum(range(self.GetParameter("upto") + 1))
        return 0
