//! What can go wrong between a caller and the simulated engine, and what the engine was made to do.

use std::time::Duration;

use jiff::Timestamp;

use crate::adapters::containers::EngineEvent;

/// Something done to the engine at a caller's wish. `Display` says it to people (`gaia plan`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Create {
        name: String,
        image: String,
    },
    Start {
        name: String,
    },
    Stop {
        name: String,
    },
    Remove {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    ForbidRestarts {
        name: String,
    },
    EnsureNetwork {
        network: String,
    },
    Attach {
        name: String,
        network: String,
        aliases: Vec<String>,
    },
    Pull {
        image: String,
    },
    Exec {
        name: String,
        command: Vec<String>,
    },
    /// A request after which its process holds more or less of a card.
    Ask {
        name: String,
        path: String,
    },
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Effect::Create { name, image } => write!(f, "create container {name} from {image}"),
            Effect::Start { name } => write!(f, "start container {name}"),
            Effect::Stop { name } => write!(f, "stop container {name}"),
            Effect::Remove { name } => write!(f, "remove container {name}"),
            Effect::Rename { from, to } => write!(f, "rename container {from} to {to}"),
            Effect::ForbidRestarts { name } => write!(f, "take the restart policy of container {name} away"),
            Effect::EnsureNetwork { network } => write!(f, "create network {network}"),
            Effect::Attach { name, network, aliases } if aliases.is_empty() => {
                write!(f, "attach container {name} to network {network} under no alias")
            }
            Effect::Attach { name, network, aliases } => {
                write!(f, "attach container {name} to network {network} as {}", aliases.join(", "))
            }
            Effect::Pull { image } => write!(f, "pull image {image}"),
            Effect::Ask { name, path } => write!(f, "ask the process in container {name} for {path}"),
            Effect::Exec { name, command } => write!(f, "run {} in container {name}", command.join(" ")),
        }
    }
}

/// An effect that changed something, and when. A verb that found its end reached leaves no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectRecord {
    pub at: Timestamp,
    pub effect: Effect,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// `Unreachable`, and nothing happened. After an effect it is too late to refuse: taken as `LoseAnswer`.
    Refuse,
    /// `MayHaveTakenEffect`: before the effect it did not, after the effect it did.
    LoseAnswer,
    /// So much later.
    Slow(Duration),
    /// No answer until the caller's deadline.
    Hang,
    /// The calling process dies here: the call never returns, and [`super::SimulatedContainers::crashes`] tells.
    Crash,
}

/// What becomes of a request to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerFault {
    #[default]
    None,
    /// An answer other than 2xx, and nothing is done.
    Refuse,
    /// 200, and nothing is done.
    Lie,
    /// Done, and no answer.
    LoseAnswer,
    /// So much later.
    Slow(Duration),
    /// No answer until the caller's time is up, and nothing is done.
    Hang,
    /// As [`Fault::Crash`].
    Crash,
}

/// What becomes of a look at a card, or at all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CardFault {
    #[default]
    None,
    /// The driver does not answer.
    Refuse,
    /// Nor does it say so before the caller's patience ends.
    Hang,
    /// So much later.
    Slow(Duration),
    /// The card is not there (any more).
    Lost,
    /// The card is there, but neither its memory nor its processes are told.
    Untold,
    /// As [`Fault::Crash`].
    Crash,
}

/// What happens to a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    #[default]
    Deliver,
    Hide,
    Duplicate,
    Delay(Duration),
}

/// Decides about faults. Hooks run without the engine's lock, so they may look at it with
/// [`super::SimulatedContainers::observed`] (an oracle at every effect), but must not call its verbs.
pub trait Faults: Send {
    /// Before an effect, also one that will find its end reached.
    fn before(&mut self, _effect: &Effect) -> Fault {
        Fault::None
    }

    /// Right after it, before the caller has its answer.
    fn after(&mut self, _effect: &Effect) -> Fault {
        Fault::None
    }

    /// Before a read: list, inspect, image.
    fn read(&mut self) -> Fault {
        Fault::None
    }

    /// Before a request reaches the process in the container of that name.
    fn ask(&mut self, _name: &str, _path: &str) -> PeerFault {
        PeerFault::None
    }

    /// Before a look at a card, or at all of them.
    fn cards(&mut self) -> CardFault {
        CardFault::None
    }

    fn notification(&mut self, _event: &EngineEvent) -> Delivery {
        Delivery::Deliver
    }
}

/// Nothing ever fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl Faults for NoFaults {}
