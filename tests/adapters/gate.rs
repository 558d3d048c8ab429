//! A gate before Docker's socket, to be shut and opened again: an engine that goes away, comes back, or swallows an
//! answer, without one being stopped.

use std::{path::PathBuf, sync::Arc};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    Open,
    /// Every request goes in, no answer comes out, and the connection breaks.
    LosesAnswers,
    /// Nobody listens; what was connected is cut.
    Shut,
}

pub struct Gate {
    dir: TempDir,
    behind: String,
    passage: Arc<watch::Sender<Passage>>,
    tasks: JoinSet<()>,
}

impl Gate {
    /// Before the engine at `host` (`unix://…`), open.
    pub fn before(host: &str) -> Self {
        let behind = host.strip_prefix("unix://").expect("a gate stands before a socket").to_owned();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let passage = Arc::new(watch::Sender::new(Passage::Open));
        let mut gate = Self { dir, behind, passage, tasks: JoinSet::new() };
        gate.listen();
        gate
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    pub async fn set(&mut self, passage: Passage) {
        let before = self.passage.send_replace(passage);
        if passage == Passage::Shut {
            self.tasks.shutdown().await;
            std::fs::remove_file(self.path()).expect("the gate was open");
        } else if before == Passage::Shut {
            self.listen();
        }
    }

    fn listen(&mut self) {
        let listener = UnixListener::bind(self.path()).expect("the socket can be made");
        let (behind, passage) = (self.behind.clone(), self.passage.clone());
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((front, _)) = listener.accept().await {
                let back = UnixStream::connect(&behind).await.expect("the engine behind the gate lives");
                let passage = *passage.borrow();
                connections.spawn(pass(front, back, passage));
            }
        });
    }
}

async fn pass(mut front: UnixStream, mut back: UnixStream, passage: Passage) {
    if passage == Passage::LosesAnswers {
        swallow(front, back).await;
        return;
    }
    // Either side may break off; that is what sockets do.
    copy_bidirectional(&mut front, &mut back).await.ok();
}

/// One request and the beginning of its answer, which goes nowhere.
async fn swallow(mut front: UnixStream, mut back: UnixStream) {
    let mut request = vec![0; 64 * 1024];
    let read = front.read(&mut request).await.unwrap_or(0);
    back.write_all(&request[..read]).await.expect("the engine behind the gate lives");
    let answer = back.read(&mut request).await.expect("the engine behind the gate lives");
    assert!(answer > 0, "the engine hung up without an answer");
}
