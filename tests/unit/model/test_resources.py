"""What a task needs against what a site offers."""

from __future__ import annotations

import pytest

from iceprod_p2p.model.resources import Offer, Requirements

OFFER = Offer("slot", 4, attributes=("cvmfs", "os=RHEL_8_x86_64"))


@pytest.mark.parametrize(
    ("attributes", "fits"),
    [
        ((), True),
        (("cvmfs",), True),
        (("cvmfs", "os=RHEL_8_x86_64"), True),
        (("os=RHEL_7_x86_64|RHEL_8_x86_64",), True),
        (("os=RHEL_8_x86_64|RHEL_9_x86_64", "gone"), False),
        (("os=RHEL_7_x86_64|RHEL_9_x86_64",), False),
        (("os=RHEL_8",), False),
        (("arch=RHEL_8_x86_64|x",), False),
        (("cvmfs|gone",), False),
        (("os=|",), False),
    ],
)
def test_every_attribute_must_be_offered_and_of_alternatives_any(
    attributes: tuple[str, ...], fits: bool
) -> None:
    assert OFFER.fits(Requirements(attributes=attributes)) is fits
