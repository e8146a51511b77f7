//! Buffers that belong to a thread: a connection borrows one while it reads or writes.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// Long enough that one read empties most clients' streams, and one write takes hundreds of
/// packets.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static FREE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A buffer of 64 KiB with anything in it; goes back to its thread when dropped. Not to be kept across an
/// `await`, or each waiting connection would hold one.
pub(crate) struct Scratch(Box<[u8]>);

impl Scratch {
    pub(crate) fn take() -> Self {
        let free = FREE.take();
        Self(free.unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        FREE.set(Some(std::mem::take(&mut self.0)));
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
