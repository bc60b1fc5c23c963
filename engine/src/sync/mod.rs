//! The synchronisation primitives of lock-free code: the standard library's, or loom's in a model.
//!
//! A module that takes its atomics from here can be compiled into a loom model unchanged.
//! Guarantees: outside of models every name is the standard library's own type, and
//! [`AccessTracker`] is nothing at all.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, atomic};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, atomic};

pub(crate) mod futex;
pub(crate) mod sequential;

/// Stands for plain memory beside it, so that a model notices a read that does not happen after the
/// write.
///
/// Loom sees its own types only; bytes written through raw pointers are invisible to it. A
/// structure puts a tracker next to such bytes and reports every access.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct AccessTracker;

#[cfg(not(loom))]
impl AccessTracker {
    /// A tracker of memory that nobody else can reach yet.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self
    }

    /// The tracked memory is written now.
    #[inline(always)]
    pub(crate) fn written(&self) {}

    /// The tracked memory is read now.
    #[inline(always)]
    pub(crate) fn read(&self) {}
}

/// Stands for plain memory beside it, so that a model notices a read that does not happen after the
/// write.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct AccessTracker(loom::cell::UnsafeCell<()>);

#[cfg(loom)]
impl AccessTracker {
    /// A tracker of memory that nobody else can reach yet.
    pub(crate) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(()))
    }

    /// The tracked memory is written now.
    pub(crate) fn written(&self) {
        self.0.with_mut(|_| ());
    }

    /// The tracked memory is read now.
    pub(crate) fn read(&self) {
        self.0.with(|_| ());
    }
}
