//! PCI configuration space through the ports 0xCF8 and 0xCFC (PCI Local Bus Specification 3.0,
//! §3.2.2.3.2, configuration mechanism #1), which every PC with PCI has; the extended space of PCI
//! Express is not reached this way and not needed.
//!
//! Used at boot, on one CPU, by drivers that look for their device. A machine without PCI reads as
//! all ones, which no device has for a vendor.

use virtio_drivers::transport::pci::bus::{
    Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, PciRoot,
};
use x86_64::instructions::port::Port;

const ADDRESS_PORT: u16 = 0xCF8;
const DATA_PORT: u16 = 0xCFC;
const ENABLE: u32 = 1 << 31;

/// The two ports. They are one address register and one data register: not for two CPUs at once.
pub struct PortAccess(());

impl PortAccess {
    fn select(device: DeviceFunction, register: u8) {
        let address = ENABLE
            | u32::from(device.bus) << 16
            | u32::from(device.device) << 11
            | u32::from(device.function) << 8
            | u32::from(register & !3);
        // SAFETY: selecting a register has no effect on the device; one CPU does this at a time
        // (`root`'s contract).
        unsafe { Port::<u32>::new(ADDRESS_PORT).write(address) };
    }
}

impl ConfigurationAccess for PortAccess {
    fn read_word(&self, device: DeviceFunction, register: u8) -> u32 {
        Self::select(device, register);
        // SAFETY: reads of configuration space have no side effects.
        unsafe { Port::<u32>::new(DATA_PORT).read() }
    }

    fn write_word(&mut self, device: DeviceFunction, register: u8, value: u32) {
        Self::select(device, register);
        // SAFETY: the caller is the driver of the device.
        unsafe { Port::<u32>::new(DATA_PORT).write(value) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(())
    }
}

/// The root of the machine's PCI buses.
///
/// # Safety
/// Nobody else uses configuration space while the value lives; at boot only the boot CPU does.
pub unsafe fn root() -> PciRoot<PortAccess> {
    PciRoot::new(PortAccess(()))
}

/// The devices on bus 0, where a virtual machine has them unless it is told otherwise.
pub fn devices(
    root: &PciRoot<PortAccess>,
) -> impl Iterator<Item = (DeviceFunction, DeviceFunctionInfo)> + use<> {
    root.enumerate_bus(0)
}

/// Lets a device answer at its memory addresses and read and write memory, and keeps it from
/// raising its interrupt line.
pub fn enable_polled(root: &mut PciRoot<PortAccess>, device: DeviceFunction) {
    let (_, command) = root.get_status_command(device);
    let wanted = Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE;
    root.set_command(device, command | wanted);
}
