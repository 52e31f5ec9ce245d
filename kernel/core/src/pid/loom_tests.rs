//! A lookup in two namespaces against publication and free: whoever finds a PID finds its numbers
//! and a live subject.

use super::*;
use crate::epoch::{Epoch, ReadSide};
use crate::shim::loom_model;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use std::boxed::Box;

#[repr(C)]
struct Task {
    callback: Callback,
    alive: UnsafeCell<bool>,
}

struct World {
    inner: NamespaceRef<Task>,
    epoch: Epoch,
}

impl World {
    fn look(&self, level: u32) {
        // SAFETY: threads of this test pass quiescent states between calls of this only.
        let section = unsafe { ReadSide::assume() };
        let namespace = self.inner.ancestor(level).unwrap();
        let Some(pid) = namespace.lookup(1, &section) else { return };
        assert_eq!(pid.numbers(), [1, 1]);
        let task = pid.subject().expect("published");
        // SAFETY: what is under test.
        assert!(unsafe { task.as_ref() }.alive.with(|alive| unsafe { *alive }));
    }
}

unsafe fn free_task(callback: NonNull<Callback>) {
    // SAFETY: the test defers boxes of `Task`.
    let task = unsafe { Box::from_raw(callback.cast::<Task>().as_ptr()) };
    // SAFETY: exclusive, as loom checks.
    task.alive.with_mut(|alive| unsafe { *alive = false });
}

#[test]
fn loom_pid_lookup_while_it_is_published_and_freed() {
    loom_model(|| {
        // SAFETY: the only writer.
        let mut writer = unsafe { Writer::new() };
        let mut deferred = Deferred::new();
        let root = NamespaceRef::new_root(&mut writer, 400).unwrap();
        let inner = root.new_child(&mut writer).unwrap();
        let world = Arc::new(World { inner, epoch: Epoch::new() });
        world.epoch.leave_idle(1);
        let reader = {
            let world = world.clone();
            loom::thread::spawn(move || {
                world.look(1);
                world.epoch.quiescent(1);
                world.look(0);
                world.epoch.enter_idle(1);
            })
        };
        let task = Box::new(Task { callback: Callback::new(), alive: UnsafeCell::new(true) });
        let task = NonNull::new(Box::into_raw(task)).unwrap();
        let pid = OwnedPid::reserve(&mut writer, &mut deferred, &world.inner, &[]).unwrap();
        pid.publish(&mut writer, task).unwrap();
        pid.free(&mut writer, &mut deferred);
        // SAFETY: unpublished just now, and made from a box.
        unsafe { deferred.defer(task.cast(), free_task) };
        deferred.poll(&world.epoch);
        reader.join().unwrap();
        while deferred.pending() > 0 {
            deferred.poll(&world.epoch);
        }
        assert_eq!((root.live(), world.inner.live()), (0, 0));
    });
}
