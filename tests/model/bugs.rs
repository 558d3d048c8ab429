//! Bugs planted in one step each, to see that the model finds what it is there to find.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    None,
    /// The recipient may run as soon as a handoff to it is under way.
    StartBeforeRelease,
    /// What is not known of the card counts as free.
    LeaseWithoutProof,
    /// Whoever was granted the card once may use it.
    StaleAccepted,
    /// What was read may be written over, whoever has written meanwhile.
    NoCompareAndSwap,
    /// Handoffs that have not ended are kept in memory only.
    CrashForgets,
}
