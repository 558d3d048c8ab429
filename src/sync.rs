//! The locks and threads of code whose interleavings are explored: as the standard library has them. `tests/interleavings` compiles the
//! same files once more, with shuttle's in this place.

pub use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};
