//! Lookups against growth, removal and the reclamation of nodes and values.
//!
//! Values are loom cells, and [`Node::free`] touches its slots exclusively: whatever is read while
//! it is being freed, or unordered with that, is reported.

use super::*;
use crate::epoch::{Callback, Epoch};
use crate::shim::loom_model;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use std::boxed::Box;

#[repr(C)]
struct Value {
    callback: Callback,
    id: UnsafeCell<u32>,
}

struct World {
    idr: Idr<Value>,
    epoch: Epoch,
}

impl World {
    fn look(&self, id: u32) -> bool {
        // SAFETY: threads of these tests pass quiescent states between calls of this only.
        let section = unsafe { ReadSide::assume() };
        let Some(value) = self.idr.lookup(id, &section) else { return false };
        // SAFETY: what is under test.
        let found = unsafe { value.as_ref() }.id.with(|id| unsafe { *id });
        assert_eq!(found, id);
        true
    }

    fn add(&self, writer: &mut Writer, id: u32) {
        self.idr.reserve_at(writer, id).unwrap();
        let value = Box::new(Value { callback: Callback::new(), id: UnsafeCell::new(id) });
        self.idr.publish(writer, id, NonNull::new(Box::into_raw(value)).unwrap());
    }

    fn remove(&self, writer: &mut Writer, id: u32, deferred: &mut Deferred) {
        let value = self.idr.remove(writer, id, deferred).unwrap();
        // SAFETY: just removed; made by `add` from a box.
        unsafe { deferred.defer(value.cast(), free) };
    }
}

unsafe fn free(callback: NonNull<Callback>) {
    // SAFETY: `World::remove` passes boxes of `Value`.
    let value = unsafe { Box::from_raw(callback.cast::<Value>().as_ptr()) };
    // SAFETY: exclusive, as loom checks.
    value.id.with_mut(|id| unsafe { *id = u32::MAX });
}

#[test]
fn loom_idr_lookup_while_the_tree_grows_and_shrinks() {
    loom_model(|| {
        let world = Arc::new(World { idr: Idr::new(), epoch: Epoch::new() });
        // SAFETY: the only writer.
        let mut writer = unsafe { Writer::new() };
        let mut deferred = Deferred::new();
        world.add(&mut writer, 0);
        world.epoch.leave_idle(1);
        let reader = {
            let world = world.clone();
            loom::thread::spawn(move || {
                assert!(world.look(0), "an id that stays is always found");
                world.look(2);
                world.epoch.quiescent(1);
                world.look(2);
                world.epoch.enter_idle(1);
            })
        };
        world.add(&mut writer, 2);
        world.remove(&mut writer, 2, &mut deferred);
        deferred.poll(&world.epoch);
        reader.join().unwrap();
        world.remove(&mut writer, 0, &mut deferred);
        while deferred.pending() > 0 {
            deferred.poll(&world.epoch);
        }
    });
}
