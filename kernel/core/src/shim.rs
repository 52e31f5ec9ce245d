//! The atomics that loom can watch.
//!
//! Code whose memory ordering is model-checked takes its atomics from here instead of from
//! `core::sync::atomic`. Built with `--cfg loom` they are loom's, which explore every order that
//! the memory model allows; otherwise they are the processor's own and cost nothing.
//!
//! Loom differs in two ways that this module levels out:
//! - its constructors are not `const`: see `const_unless_loom`;
//! - it treats a `SeqCst` load, store or exchange as if it were only acquire and release, and
//!   knows the total order of `SeqCst` *fences* alone: see [`seqcst_fence_for_loom`].
//!
//! Neighbours: [`crate::inbox`], [`crate::idle`], [`crate::epoch`], [`crate::idr`], [`crate::sched::home`].

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// Stands between two `SeqCst` accesses whose total order matters.
///
/// The language already gives that order, and on x86-64 the exchange before it is a full barrier:
/// in a real build this is nothing at all. For loom it is the fence that loom understands.
#[inline(always)]
pub(crate) fn seqcst_fence_for_loom() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Defines constructors that are `const` wherever loom's atomics are not involved.
macro_rules! const_unless_loom {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block)+) => {
        $(
            #[cfg(not(loom))]
            $(#[$meta])*
            $vis const fn $name($($arg: $ty),*) -> $ret $body
            #[cfg(loom)]
            $(#[$meta])*
            $vis fn $name($($arg: $ty),*) -> $ret $body
        )+
    };
}
pub(crate) use const_unless_loom;

/// Runs a model in every order that takes at most three forced preemptions, or as many as
/// `LOOM_MAX_PREEMPTIONS` says. Nearly all ordering bugs need two; without a bound the models run
/// for hours.
#[cfg(all(test, loom))]
pub(crate) fn loom_model(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(model);
}
