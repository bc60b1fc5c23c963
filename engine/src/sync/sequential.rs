//! Atomics whose `SeqCst` accesses have one order that all threads agree on.
//!
//! Loom's keep to such an order, but for the value that an atomic begins with: that one it hands out as if it were older than the
//! order. The model's atomics therefore write it once more.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(loom)]
pub(crate) use in_model::{AtomicU32, AtomicU64};

#[cfg(loom)]
mod in_model {
    use loom::sync::atomic::Ordering;

    macro_rules! sequential {
        ($name:ident, $number:ty) => {
            #[derive(Debug)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $number) -> Self {
                    let atomic = loom::sync::atomic::$name::new(value);
                    atomic.store(value, Ordering::SeqCst);
                    Self(atomic)
                }
            }

            impl std::ops::Deref for $name {
                type Target = loom::sync::atomic::$name;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }
        };
    }

    sequential!(AtomicU32, u32);
    sequential!(AtomicU64, u64);
}
