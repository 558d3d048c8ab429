//! Why things are as they are: one vocabulary for conditions, events and metric labels.

use crate::adapters::containers::TerminalReason;

/// `reason` of conditions and events of a Workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::Display, strum::EnumIter)]
pub enum Reason {
    // As wished.
    Running,
    Stopped,
    // On the way.
    PullingImage,
    Creating,
    Recreating,
    Renaming,
    Starting,
    Stopping,
    Restarting,
    Removing,
    Attaching,
    ForbiddingRestarts,
    Deleting,
    CrashLoopBackOff,
    WaitingForDependency,
    DependencyNotFound,
    /// Another holds the card.
    WaitingForGpu,
    /// The engine answered that something went wrong in passing.
    EngineError,
    // Not as wished, and nothing is to be done by us.
    Exited,
    Unhealthy,
    Suspended,
    // Not known.
    EngineUnreachable,
    HealthUnknown,
    // Somebody must change something.
    NameTaken,
    AdoptedContainerNotFound,
    AdoptedContainerManaged,
    /// Compose runs a container for the service that is not as the file says.
    ComposeDiffers,
    DependencyCycle,
    ImageNeverPull,
    ImagePullBackOff,
    ImageNotFound,
    PortInUse,
    NetworkNotFound,
    Refused,
    StartFailed,
    Paused,
    Dead,
    // Events only.
    Drift,
    Duplicate,
    SpecChanged,
    LivenessFailed,
    Created,
    Started,
    Restarted,
    Removed,
    Renamed,
    Attached,
    FailedOver,
    FailedBack,
    RestartsForbidden,
    Pulled,
    None,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<TerminalReason> for Reason {
    fn from(reason: TerminalReason) -> Self {
        match reason {
            TerminalReason::ImageNotFound => Reason::ImageNotFound,
            TerminalReason::NameTaken => Reason::NameTaken,
            TerminalReason::PortInUse => Reason::PortInUse,
            TerminalReason::NetworkNotFound => Reason::NetworkNotFound,
            TerminalReason::Refused => Reason::Refused,
            TerminalReason::StartFailed => Reason::StartFailed,
        }
    }
}
