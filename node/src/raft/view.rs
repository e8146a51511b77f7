//! The agreed state, which one task changes and all look at.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::State;

/// The state, and the copy of it that all share who look at it before it changes again.
///
/// A copy is made in no time, for it shares all rows with the state; but each row that changes while there is a copy
/// has to be copied itself, with what leads to it. So there is none where nobody looks.
#[derive(Debug)]
pub(crate) struct View {
    inner: Mutex<Inner>,
    /// How far the state is in the log.
    index: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    state: State,
    copy: Option<Arc<State>>,
}

impl View {
    pub(crate) fn new(state: State) -> Self {
        let index = AtomicU64::new(state.index());
        Self { inner: Mutex::new(Inner { state, copy: None }), index }
    }

    /// The state as it is now. Waits at most for the entry that is being applied, and for none that takes long.
    pub(crate) fn load(&self) -> Arc<State> {
        let inner = &mut *self.lock();
        inner.copy.get_or_insert_with(|| Arc::new(inner.state.clone())).clone()
    }

    /// Looks at the state without a copy of it. Applying waits meanwhile, so this is for glances.
    pub(crate) fn glance<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// The log index up to which changes are applied.
    pub(crate) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    /// Changes the state, as agreed. For the task that applies.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut inner = self.lock();
        inner.copy = None;
        let changed = change(&mut inner.state);
        self.index.store(inner.state.index(), Ordering::Release);
        changed
    }

    /// The same for what may take long, as a change that concerns every socket does: whoever looks meanwhile finds the
    /// state as it was before.
    pub(crate) fn change_aside<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.glance(State::clone);
        let changed = change(&mut state);
        // What it held alone takes a while to be given up, too.
        drop(self.change(|current| mem::replace(current, state)));
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it is changed ends consensus, and the node with it, which may look until then.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_is_shared_until_the_state_changes() {
        let view = View::new(State::default());
        let (before, again) = (view.load(), view.load());
        assert!(Arc::ptr_eq(&before, &again));
        view.change(|state| state.advance_to(7));
        assert_eq!((before.index(), view.load().index(), view.index()), (0, 7, 7));
        assert_eq!(view.glance(State::index), 7);
    }

    #[test]
    fn change_aside_is_seen_when_it_is_done() {
        let view = View::new(State::default());
        let seen = view.change_aside(|state| {
            state.advance_to(3);
            (view.load().index(), view.index())
        });
        assert_eq!(seen, (0, 0));
        assert_eq!((view.load().index(), view.index()), (3, 3));
    }

    #[test]
    fn state_that_nobody_looks_at_has_no_copy() {
        let view = View::new(State::default());
        let copy = Arc::downgrade(&view.load());
        assert_eq!(copy.strong_count(), 1, "kept for the next who looks");
        view.change(|state| state.advance_to(1));
        assert_eq!(copy.strong_count(), 0);
        assert!(view.lock().copy.is_none());
    }
}
