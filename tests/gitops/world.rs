//! A directory, a registry and a running syncer; and how to wait for what they come to.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gaia::{
    api::{
        self,
        source::{Source, SourceStatus},
    },
    gitops::{self, Gitops, files::Files, files::real::RealFiles, git::Repositories},
    registry::{DeleteOptions, Kind, Kinds, ObjectName, Patch, Reason, Registry, WriteOptions, ids::RandomIds},
    runtime::{
        clock::SystemClock,
        events::{Recorded, Recorder},
        metrics::RuntimeMetrics,
    },
    store::{EmbeddedStore, MemoryEngine, Options, Prefix},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes; what is not so by then will not be.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct World {
    pub registry: Arc<Registry>,
    pub gitops: Gitops,
    pub notes: mpsc::Receiver<Recorded>,
    temporary: TempDir,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    /// An empty directory, a Source over it, and the syncer at work.
    pub async fn start() -> Self {
        let mut world = Self::still(Arc::new(RealFiles)).await;
        world.run();
        world.until_ready("Applied").await;
        world
    }

    /// The same, with nobody at work.
    pub async fn still(files: Arc<dyn Files>) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(temporary.path().join("desired")).expect("can be made");
        let registry = registry().await;
        let clock = Arc::new(SystemClock);
        let (recorder, notes) = Recorder::new(clock.clone(), RuntimeMetrics::default());
        let repositories = Repositories::new(temporary.path().join("git"), clock.clone());
        let gitops = Gitops { registry: registry.clone(), recorder, clock, files, repositories };
        let world = Self { registry, gitops, notes, temporary, running: None };
        gitops::ensure_desired(&world.registry, &world.root()).await.expect("the source is valid");
        world
    }

    /// A directory beside the first, and the Source of this name over it, at work if the first one is.
    pub async fn another(&self, name: &str) -> PathBuf {
        let directory = self.temporary.path().join(name);
        fs::create_dir_all(&directory).expect("can be made");
        let source = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Source", "metadata": {"name": name},
            "spec": {"directory": directory}});
        let options = WriteOptions { field_manager: "kubectl".to_owned(), ..WriteOptions::default() };
        self.registry.create(&self.kind("Source"), None, source, &options).await.expect("the source is valid");
        directory
    }

    /// Of this name and spec.
    pub async fn make_source(&self, name: &str, spec: Value) {
        let source =
            json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Source", "metadata": {"name": name}, "spec": spec});
        let options = WriteOptions { field_manager: "kubectl".to_owned(), ..WriteOptions::default() };
        self.registry.create(&self.kind("Source"), None, source, &options).await.expect("the source is valid");
    }

    /// Where nothing of a test is yet.
    pub fn scratch(&self) -> &Path {
        self.temporary.path()
    }

    pub fn run(&mut self) {
        let cancel = CancellationToken::new();
        let (gitops, token) = (self.gitops.clone(), cancel.clone());
        let task = tokio::spawn(async move {
            let Ok(()) = gitops::run::run(gitops, token).await;
        });
        self.running = Some((cancel, task));
    }

    /// As a crash does: wherever it is.
    pub async fn stop(&mut self) {
        if let Some((cancel, task)) = self.running.take() {
            cancel.cancel();
            timeout(DEADLINE, task).await.expect("ends when asked").expect("does not panic");
        }
    }

    pub fn root(&self) -> PathBuf {
        self.temporary.path().join("desired")
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// In place: truncated, then written.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("can be made");
        fs::write(path, text).expect("can be written");
    }

    /// As editors do: written aside, then renamed.
    pub fn replace(&self, path: &str, text: impl AsRef<[u8]>) {
        self.write("4913", "");
        self.remove("4913");
        let aside = self.path(&format!("{path}~"));
        fs::write(&aside, text).expect("can be written");
        fs::rename(aside, self.path(path)).expect("can be renamed");
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).expect("was there");
    }

    pub fn rename(&self, from: &str, to: &str) {
        let to = self.path(to);
        fs::create_dir_all(to.parent().expect("below the root")).expect("can be made");
        fs::rename(self.path(from), to).expect("can be renamed");
    }

    pub fn kind(&self, kind: &str) -> Arc<Kind> {
        self.registry.kinds().iter().find(|k| k.kind == kind).expect("a kind of ours").clone()
    }

    pub async fn workload(&self, name: &str) -> Option<Value> {
        self.object("Workload", Some("default"), name).await
    }

    pub async fn object(&self, kind: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        match self.registry.get(&self.kind(kind), &named(namespace, name)).await {
            Ok(version) => Some(version.object.clone()),
            Err(error) if error.reason == Reason::NotFound => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn image(&self, name: &str) -> Option<String> {
        let object = self.workload(name).await?;
        object.pointer("/spec/live/container/image")?.as_str().map(str::to_owned)
    }

    /// As `kubectl patch --type merge` does.
    pub async fn patch(&self, kind: &str, name: &str, patch: Value) {
        let kind = self.kind(kind);
        let name = named(kind.namespaced.then_some("default"), name);
        let options = WriteOptions { field_manager: "kubectl".to_owned(), ..WriteOptions::default() };
        self.registry.patch(&kind, &name, Patch::Merge(patch), &options).await.expect("a valid patch");
    }

    pub async fn delete(&self, kind: &str, name: &str) {
        let kind = self.kind(kind);
        let name = named(kind.namespaced.then_some("default"), name);
        self.registry.delete(&kind, &name, &DeleteOptions::default()).await.expect("can be deleted");
    }

    pub async fn status(&self) -> SourceStatus {
        self.status_of(gitops::DESIRED).await
    }

    pub async fn status_of(&self, source: &str) -> SourceStatus {
        let source = self.object("Source", None, source).await.expect("the source is there");
        let source: Source = serde_json::from_value(source).expect("fits its type");
        source.status.unwrap_or_default()
    }

    pub async fn ready_reason(&self) -> Option<String> {
        self.status().await.conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| c.reason)
    }

    pub async fn errors(&self) -> Vec<String> {
        self.errors_of(gitops::DESIRED).await
    }

    pub async fn errors_of(&self, source: &str) -> Vec<String> {
        self.status_of(source).await.errors.iter().map(gitops::status::describe).collect()
    }

    pub async fn inventory(&self) -> Vec<String> {
        self.status().await.inventory.iter().map(|entry| format!("{} {}", entry.name, entry.file)).collect()
    }

    pub async fn until_ready(&self, reason: &str) {
        self.until(reason, async || self.ready_reason().await.as_deref() == Some(reason)).await;
    }

    pub async fn until_image(&self, name: &str, image: &str) {
        self.until(&format!("{name} has {image}"), async || self.image(name).await.as_deref() == Some(image)).await;
    }

    pub async fn until_gone(&self, name: &str) {
        self.until(&format!("{name} is gone"), async || self.workload(name).await.is_none()).await;
    }

    pub async fn until_error(&self, part: &str) {
        self.until(part, async || self.errors().await.iter().any(|error| error.contains(part))).await;
    }

    /// Waits for a state: looks, and looks again whenever anything was written.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let store = self.registry.store();
        let now = store.revision().await.expect("the store is open");
        let mut watch = store.watch(Prefix::all(), now).await.expect("can be watched");
        let wait = async {
            while !holds().await {
                watch.next().await.expect("the store is open");
            }
        };
        if timeout(DEADLINE, wait).await.is_err() {
            panic!("not so in time: {what}; the source says {:#?}", self.status().await);
        }
    }

    /// The next note that holds `part`.
    pub async fn until_note(&mut self, part: &str) -> Recorded {
        let mut others = Vec::new();
        let wait = async {
            loop {
                let recorded = self.notes.recv().await.expect("the recorder is there");
                if recorded.note.message.contains(part) {
                    return recorded;
                }
                others.push(recorded.note.message);
            }
        };
        match timeout(DEADLINE, wait).await {
            Ok(recorded) => recorded,
            Err(_) => panic!("nobody said {part:?}, only {others:?}"),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((cancel, _)) = &self.running {
            cancel.cancel();
        }
    }
}

pub async fn registry() -> Arc<Registry> {
    let kinds = Kinds::from_crds(&api::crds()).expect("our definitions are valid");
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("memory can be opened");
    Registry::open(store, kinds, Arc::new(SystemClock), Arc::new(RandomIds)).await.expect("an empty registry opens")
}

pub fn named(namespace: Option<&str>, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.map(str::to_owned), name: name.to_owned() }
}

pub fn workload(name: &str, image: &str) -> String {
    let object = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": name},
        "spec": {"live": {"container": {"image": image}}}});
    serde_saphyr::to_string(&object).expect("plain data")
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("can be made");
    for entry in fs::read_dir(from).expect("can be read") {
        let entry = entry.expect("can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("can be copied");
        }
    }
}
