//! The old APIs: each translates requests into objects of ours, and objects into answers. None keeps state of its own: what a
//! facade call does, the same write with `kubectl` does too.

pub mod droplets;
pub mod gaia;
mod reply;
pub mod tasks;
