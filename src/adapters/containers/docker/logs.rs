//! What a container prints, as it prints it. Only `gaia worker` wants it, and only of a real engine, so it is no verb of
//! [`Containers`](crate::adapters::containers::Containers).

use bollard::{container::LogOutput, query_parameters::LogsOptionsBuilder};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use super::{DockerEngine, errors::Call};
use crate::adapters::containers::{ContainerId, EngineResult};

/// Some bytes, not cut at lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    pub stream: PrintedTo,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrintedTo {
    Stdout,
    Stderr,
}

impl DockerEngine {
    /// Everything it has printed and will print, from the beginning, the same bytes at every call. Ends with the container, or
    /// with an error where the connection ends first; that it has ended is no proof that the container has.
    pub fn follow_logs(&self, id: &ContainerId) -> BoxStream<'static, EngineResult<Printed>> {
        let (engine, id) = (self.clone(), id.clone());
        let opened = async move {
            let docker = engine.client().await?;
            let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
            let log = docker.logs(&id.0, Some(options));
            let failed = move |error| Call::read("read what is printed by", &id.0).failed(error);
            Ok(log.map(move |chunk| chunk.map(printed).map_err(&failed)))
        };
        stream::once(opened).try_flatten().boxed()
    }
}

fn printed(chunk: LogOutput) -> Printed {
    match chunk {
        LogOutput::StdErr { message } => Printed { stream: PrintedTo::Stderr, bytes: message.to_vec() },
        // With a terminal there is but one stream.
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            Printed { stream: PrintedTo::Stdout, bytes: message.to_vec() }
        }
    }
}
