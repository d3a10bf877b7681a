"""Machines of each architecture, and what this host can run itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import plans
import pytest

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_images.description import native_architecture
from cleanroom_workers.container import Container
from cleanroom_workers.machine import Machine
from cleanroom_workers.plan import Plan
from cleanroom_workers.platforms import foreign, platform

FOREIGN = "riscv64" if native_architecture() != "riscv64" else "arm64"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    made = plans.plan(tmp_path)
    image = replace(made.image, architecture=FOREIGN, tree=tmp_path)
    return replace(made, image=image, files={"etc/key": (0o600, b"secret")})


def test_an_image_for_another_architecture_can_only_be_emulated(plan: Plan) -> None:
    assert foreign(replace(plan.image, architecture=native_architecture())) is None
    told = f"for {FOREIGN} and this host is {native_architecture()}"
    assert told in str(foreign(plan.image))
    for way in (Container(), Machine("kvm", start_timeout=1)):
        with pytest.raises(InputError, match=told):
            way.prepare(plan)
    assert not plan.home.exists()


@pytest.mark.parametrize(
    ("architecture", "emulated", "machine", "console"),
    [
        ("amd64", "x86_64", "q35", "ttyS0"),
        ("arm64", "aarch64", "virt", "ttyAMA0"),
        ("riscv64", "riscv64", "virt", "ttyS0"),
    ],
)
def test_each_architecture_has_its_machine(
    plan: Plan, architecture: str, emulated: str, machine: str, console: str
) -> None:
    plan = replace(plan, image=replace(plan.image, architecture=architecture))
    domain = ElementTree.fromstring(Machine("qemu", start_timeout=1).xml(plan))
    kind = domain.find("os/type")
    assert kind is not None
    assert (kind.attrib, kind.text) == ({"arch": emulated, "machine": machine}, "hvm")
    assert f" console={console} " in str(domain.findtext("os/cmdline"))
    # Only a firmware with tables can be given credentials in them; no secret is on a command line otherwise.
    assert [told.attrib["type"] for told in domain.findall("sysinfo")] == ["smbios" if machine == "q35" else "fwcfg"]
    assert (domain.find("features/acpi") is None) == (domain.find("genid") is None) == (machine == "virt")


def test_an_architecture_without_a_machine_is_named() -> None:
    with pytest.raises(InfrastructureError, match="m68k"):
        platform("m68k")
