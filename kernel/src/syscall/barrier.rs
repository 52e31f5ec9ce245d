//! membarrier(2).

use core::sync::atomic::{Ordering, fence};

use linux_raw_sys::general::membarrier_cmd as Command;

use super::{Args, Errno, SysResult};
use crate::process::{attribute, current};
use crate::sched::{call, cpu};

const SUPPORTED: u64 = Command::MEMBARRIER_CMD_GLOBAL as u64
    | Command::MEMBARRIER_CMD_GLOBAL_EXPEDITED as u64
    | Command::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED as u64
    | Command::MEMBARRIER_CMD_PRIVATE_EXPEDITED as u64
    | Command::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u64
    | Command::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE as u64
    | Command::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE as u64;

/// Has every CPU that runs go through a barrier. An interrupt and its IRET are one, also for the instruction
/// stream (SDM vol. 3, 9.3).
fn everywhere() -> SysResult {
    call::run_on(cpu::online(), &|| fence(Ordering::SeqCst));
    Ok(0)
}

/// membarrier(2).
pub fn membarrier(args: &Args) -> SysResult {
    let attributes = &current().process.attributes;
    let register = |bit: u32| {
        attributes.fetch_or(bit, Ordering::Relaxed);
        Ok(0)
    };
    let if_registered = |bit: u32| {
        if attributes.load(Ordering::Relaxed) & bit != 0 { everywhere() } else { Err(Errno::EPERM) }
    };
    const QUERY: u32 = Command::MEMBARRIER_CMD_QUERY as u32;
    const GLOBAL: u32 = Command::MEMBARRIER_CMD_GLOBAL as u32;
    const GLOBAL_EXPEDITED: u32 = Command::MEMBARRIER_CMD_GLOBAL_EXPEDITED as u32;
    const REGISTER_GLOBAL: u32 = Command::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED as u32;
    const PRIVATE: u32 = Command::MEMBARRIER_CMD_PRIVATE_EXPEDITED as u32;
    const REGISTER_PRIVATE: u32 = Command::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u32;
    const CORE: u32 = Command::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE as u32;
    const REGISTER_CORE: u32 = Command::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE as u32;
    // The only flag there is goes with a command that is not here.
    if args[1] as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    match args[0] as u32 {
        QUERY => Ok(SUPPORTED),
        GLOBAL | GLOBAL_EXPEDITED => everywhere(),
        // Everybody is reached, registered or not.
        REGISTER_GLOBAL => Ok(0),
        PRIVATE => if_registered(attribute::PRIVATE_BARRIERS),
        REGISTER_PRIVATE => register(attribute::PRIVATE_BARRIERS),
        CORE => if_registered(attribute::CORE_BARRIERS),
        REGISTER_CORE => register(attribute::CORE_BARRIERS),
        _ => Err(Errno::EINVAL),
    }
}
