"""The machines that are emulated for each architecture, and which architectures are this host's own."""

from __future__ import annotations

from dataclasses import dataclass

from cleanroom_base.errors import InfrastructureError
from cleanroom_images.description import native_architecture
from cleanroom_images.store import Image


@dataclass(frozen=True, slots=True)
class Platform:
    """A kind of machine, in libvirt's words.

    `processor` is the plainest that boots, None where libvirt knows only one; `console` is the kernel's name of the
    serial line, `package` Debian's of the emulator. With `tables` it has a firmware that describes it in tables (ACPI,
    SMBIOS); others have a device tree.
    """

    architecture: str
    machine: str
    processor: str | None
    console: str
    tables: bool
    package: str

    @property
    def emulator(self) -> str:
        """The program that is such a machine."""
        return f"qemu-system-{self.architecture}"


# By Debian's names of architectures.
_PLATFORMS = {
    "amd64": Platform("x86_64", "q35", "qemu64", "ttyS0", tables=True, package="qemu-system-x86"),
    "arm64": Platform("aarch64", "virt", "cortex-a57", "ttyAMA0", tables=False, package="qemu-system-arm"),
    "riscv64": Platform("riscv64", "virt", None, "ttyS0", tables=False, package="qemu-system-misc"),
}


def platform(architecture: str) -> Platform:
    """The machine for an architecture in Debian's words. Raises InfrastructureError."""
    try:
        return _PLATFORMS[architecture]
    except KeyError as error:
        raise InfrastructureError(f"no virtual machine for {architecture} is known") from error


def foreign(image: Image) -> str | None:
    """Why guests of an image can only be emulated on this host; None when it is for this host's architecture."""
    native = native_architecture()
    if image.architecture == native:
        return None
    return f"the image {image.name} is for {image.architecture} and this host is {native}: its guests can be emulated"
