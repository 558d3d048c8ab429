//! What an MLOC document says: which fields it must have, into which steps it falls apart, what a step needs of a worker, and
//! what its placeholders mean. Pure, and in the words of the contract: callers hand in texts and values, and get values or a
//! sentence for the client back. Who stores, sends or answers is none of its business.
//!
//! | file | question |
//! |---|---|
//! | [`destination`] | where a result goes |
//! | [`document`] | is this text a document, and is every field that we read readable |
//! | [`expand`] | which steps does it consist of, and which waits for which |
//! | [`placeholders`] | what stands for `${stage.result.x}` |
//! | [`prompts`] | what an inference asks |
//! | [`python`] | how Python would write a value |
//! | [`amounts`] | how much is `500m`, `16Gi`, `64 gb` |
//! | [`names`] | what a task is called on the wire |
//! | [`needs`] | what a step needs, and whether a worker has it |
//! | [`shards`] | how its data is divided |
//! | [`signed`] | which URLs of artifacts open themselves |
//! | [`aggregate`] | what the results of shards come to |
//! | [`retry`] | when a failed step is tried again |

pub mod aggregate;
pub mod amounts;
pub mod destination;
pub mod document;
pub mod expand;
pub mod names;
pub mod needs;
pub mod placeholders;
pub mod prompts;
pub mod python;
pub mod retry;
pub mod shards;
pub mod signed;

/// Why a submitted document is refused, as the client is told it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Refused {
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}
