//! Shuttle's locks and threads under the names of `src/sync.rs`, and one that is broken on purpose.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    sync::{LockResult, PoisonError},
};

pub use shuttle::thread;

thread_local! {
    // All threads of an exploration run on the one that explores.
    static LATE_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// A condition is waited for a little after the lock was let go: what is told in between is missed.
pub fn late_wait(planted: bool) {
    LATE_WAIT.set(planted);
}

#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        match self.0.lock() {
            Ok(guard) => Ok(MutexGuard { mutex: self, guard }),
            Err(poisoned) => Err(PoisonError::new(MutexGuard { mutex: self, guard: poisoned.into_inner() })),
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[derive(Debug, Default)]
pub struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn wait<'a, T>(&self, held: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let MutexGuard { mutex, guard } = held;
        let guard = if LATE_WAIT.get() {
            drop(guard);
            thread::yield_now();
            mutex.0.lock().expect("nothing panics while it holds the lock")
        } else {
            guard
        };
        match self.0.wait(guard) {
            Ok(guard) => Ok(MutexGuard { mutex, guard }),
            Err(poisoned) => Err(PoisonError::new(MutexGuard { mutex, guard: poisoned.into_inner() })),
        }
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
