//! One pass over one Source: read, compare, apply, prune, report.
//!
//! 1. Read the Source and its directory; while it is pinned, its revision. Unreadable: report, change nothing. What another
//!    Source keeps is left out, and an error.
//! 2. Store the inventory: everything applied before and everything about to be applied.
//! 3. Apply every valid document, namespaces first.
//! 4. If nothing at all is wrong, wait until the directory has been quiet for a while and read it once more; if it still
//!    says the same, delete what it no longer names. (A file that moves while a tree is read can be missed, and one that
//!    is being written may be empty, or end between two documents, and so parse.)
//! 5. If nothing at all is wrong and it is another state than before, keep it as a SourceRevision.
//! 6. Store the status: what was applied, what is wrong, the inventory without what is gone.
//!
//! A crash anywhere is followed by the same pass from the beginning: the inventory names everything that may have been
//! applied, and applying again changes nothing.

mod prune;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::ResourceExt;
use tracing::warn;

use self::prune::Surplus;
use super::{
    apply::{apply_document, file_errors, kind_of, lasting_uid, name_of},
    diff::{EmptyDirectory, Plan, Prune, diff},
    files::{Directory, Files, Listing},
    git::{Known, Repositories},
    load::{LoadedFiles, ObjectId, order},
    origin::{Origin, Wanted, difference, unreadable},
    others::Others,
    revisions::{Kept, Revisions},
    standing::{LastRead, Remembered},
    status::{Outcome, Pinned, Read},
};
use crate::{
    api::{
        source::{FIELD_MANAGER, FileError, InventoryEntry, Source, SourceReason, SourceStatus},
        sourcerevision::SourceRevisionCause,
    },
    registry::{ApiError, ApiResult, ObjectName, Reason, Registry},
    runtime::{
        clock::Clock,
        events::{Note, Recorder},
        objects::Objects,
        registry_objects::RegistryObjects,
    },
    store::Revision,
};

/// After a pass that found the files changing under it, or that made a kind known.
const AGAIN: Duration = Duration::from_millis(20);
/// What is not for the files to mend is tried again: a failure of the server, an object that another Source keeps for now.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Other writers of the Source's metadata may come between so often.
const STATUS_ATTEMPTS: usize = 5;

/// What all Sources share.
#[derive(Clone)]
pub struct Gitops {
    pub registry: Arc<Registry>,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    pub files: Arc<dyn Files>,
    pub repositories: Repositories,
}

/// When to look again, if nothing happens before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    After(Duration),
    /// There is no such Source, or it is on its way out.
    Gone,
}

/// Keeps the objects of one Source as its files say. What it remembers only spares events and looks: a new one does the
/// same.
pub struct Syncer {
    gitops: Gitops,
    name: String,
    directory: Option<(Origin, Box<dyn Directory>)>,
    /// Files beside the directory that its files name.
    beside: BTreeSet<PathBuf>,
    last: Option<LastRead>,
    applied: BTreeMap<ObjectId, Remembered>,
    /// In the inventory, in no file, and still there.
    left: Vec<ObjectId>,
    /// What the Source's annotation asked for, as far as this pass answers it.
    request: Option<String>,
    /// What this pass knows of the repository.
    git: Option<Known>,
    /// A state that cannot be kept: told once.
    unkept: Option<String>,
    /// Has the last pass set back what somebody had changed?
    has_set_back: bool,
    /// At which generation of the Source, and with which revision last, nothing was left to tidy.
    tidied: Option<(Option<i64>, Option<i64>)>,
}

impl Syncer {
    pub fn new(gitops: Gitops, name: impl Into<String>) -> Self {
        Self {
            gitops,
            name: name.into(),
            directory: None,
            beside: BTreeSet::new(),
            last: None,
            applied: BTreeMap::new(),
            left: Vec::new(),
            request: None,
            git: None,
            unkept: None,
            has_set_back: false,
            tidied: None,
        }
    }

    /// One pass. An error means that the Source itself could not be read or written: try again later.
    pub async fn sync_once(&mut self) -> ApiResult<Next> {
        self.has_set_back = false;
        let Some(source) = self.source().await? else {
            self.directory = None;
            self.last = None;
            self.gitops.repositories.forget(&self.name).await;
            self.applied.clear();
            self.left.clear();
            return Ok(Next::Gone);
        };
        self.request = source.request().map(str::to_owned);
        let interval = Duration::from_secs(u64::from(source.spec.interval_seconds.max(1)));
        let origin = Origin::of(&source, interval);
        if source.spec.suspend {
            // A repository is not followed meanwhile.
            self.directory.take_if(|(open, _)| matches!(open, Origin::Git(..)));
            self.report(&source, Outcome::Suspended).await?;
            return Ok(Next::After(interval));
        }
        let (listing, files) = self.read(&origin).await;
        self.git.clone_from(&listing.git);
        if let Some(known) = &listing.git {
            self.request.clone_from(&known.answered);
        }
        let wanted = match (source.spec.pin, &listing.root) {
            (Some(pin), _) => match self.revisions(&source).load(pin).await? {
                Ok(loaded) => {
                    let files = difference(&loaded, &listing, &files);
                    Wanted { loaded, pinned: Some(Pinned { revision: pin, files }) }
                }
                Err(why) => {
                    self.report(&source, Outcome::NoRevision { why }).await?;
                    return Ok(Next::After(interval));
                }
            },
            (None, Err(why)) => {
                self.report(&source, unreadable(&source, &listing, why)).await?;
                return Ok(Next::After(interval));
            }
            (None, Ok(_)) => Wanted { loaded: files, pinned: None },
        };
        let objects = wanted.loaded.documents.len();
        match self.take_over(&source, listing, wanted, interval).await {
            // What is wrong with a document is told as such: this is the inventory.
            Err(error) if error.reason == Reason::RequestEntityTooLarge => {
                let source = self.source().await?.filter(|again| again.uid() == source.uid()).ok_or(error)?;
                self.report(&source, Outcome::TooManyObjects { objects }).await?;
                Ok(Next::After(interval))
            }
            done => done,
        }
    }

    async fn take_over(
        &mut self,
        source: &Source,
        listing: Listing,
        Wanted { mut loaded, pinned }: Wanted,
        interval: Duration,
    ) -> ApiResult<Next> {
        let before = source.status.clone().unwrap_or_default();
        let known = before.directory_identity.as_deref();
        // What a revision holds is certain, be it nothing.
        let empty = if pinned.is_some() { EmptyDirectory::Known } else { EmptyDirectory::of(&listing, known) };
        let refused = self.others(source).await?.refuse(source, &mut loaded);
        let mut plan = diff(&loaded, &before.inventory, empty, source.spec.prune);
        self.forget_the_gone(&loaded, &mut plan).await;

        let source = &self.remember_inventory(source, &before, &plan).await?;
        let applies = self.apply(&loaded).await;
        let mut errors = loaded.errors.clone();
        errors.extend(applies.errors);
        let changing = pinned.is_none().then_some(&listing);
        let surplus = match self.surplus(source, changing, &plan, &mut errors).await {
            Some(surplus) => surplus,
            None => return Ok(Next::After(AGAIN)),
        };

        let now_identity = listing.root.as_ref().ok().map(|identity| identity.0.clone());
        let as_before = pinned.is_some() || listing.files.is_empty();
        let mut read = Read {
            directory_identity: if as_before { before.directory_identity } else { now_identity },
            files: loaded.files,
            objects: applies.done,
            revision: loaded.revision(),
            inventory: self.inventory(&loaded, plan.inventory, &surplus),
            server_failed: applies.server_failed,
            empty_directory: plan.prune == Prune::UnknownEmptyDirectory && !surplus.left.is_empty(),
            pruning: surplus.pending,
            errors,
            number: pinned.as_ref().map(|pinned| pinned.revision).or(before.revision),
            pinned,
        };
        self.left = surplus.left.iter().map(ObjectId::of).collect();
        if read.is_whole() {
            self.remember(source, &loaded, &mut read).await?;
        }
        self.report(source, Outcome::Read(Box::new(read))).await?;
        Ok(Next::After(match (applies.new_kinds, applies.server_failed || refused > 0) {
            (true, _) => AGAIN,
            (false, true) => AFTER_FAILURE.min(interval),
            (false, false) => interval,
        }))
    }

    /// Completes when a file may have changed; never while there is no directory. Cancel-safe.
    pub async fn files_changed(&mut self) {
        match &mut self.directory {
            Some((_, directory)) => directory.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the last pass had to set back what somebody had changed since the pass before.
    pub fn has_set_back(&self) -> bool {
        self.has_set_back
    }

    /// The objects of the inventory, and the revision each had when it was applied: a later one is somebody else's.
    pub fn watched(&self) -> impl Iterator<Item = (&ObjectId, Revision)> {
        let applied = self.applied.iter().map(|(id, remembered)| (id, remembered.version.revision));
        applied.chain(self.left.iter().map(|id| (id, Revision::default())))
    }

    /// Without what is gone, and with the uids of what was applied.
    fn inventory(&self, loaded: &LoadedFiles, all: Vec<InventoryEntry>, surplus: &Surplus) -> Vec<InventoryEntry> {
        let wished: BTreeSet<_> = loaded.documents.iter().map(|document| &document.id).collect();
        let kept =
            all.into_iter().filter(|entry| wished.contains(&ObjectId::of(entry)) || surplus.left.contains(entry));
        let known = |entry: &InventoryEntry| {
            self.applied.get(&ObjectId::of(entry)).and_then(|last| lasting_uid(&last.version.object))
        };
        kept.map(|entry| InventoryEntry { uid: known(&entry).or(entry.uid.clone()), ..entry }).collect()
    }

    fn objects(&self) -> RegistryObjects {
        RegistryObjects { registry: self.gitops.registry.clone(), field_manager: FIELD_MANAGER }
    }

    async fn source(&self) -> ApiResult<Option<Source>> {
        let name = ObjectName { namespace: None, name: self.name.clone() };
        let source = self.objects().get::<Source>(&name).await?;
        Ok(source.filter(|source| source.metadata.deletion_timestamp.is_none()).map(|source| (*source).clone()))
    }

    async fn others(&self, ours: &Source) -> ApiResult<Others> {
        Ok(Others::of(ours, &self.objects().list::<Source>(None).await?))
    }

    /// The directory, and the files beside it that its files name. What those name in turn takes another look.
    async fn read(&mut self, origin: &Origin) -> (Listing, LoadedFiles) {
        if self.directory.as_ref().is_none_or(|(open, _)| open != origin) {
            // What is open ends before the next begins: both would write to one place.
            if let Some((Origin::Git(..), _)) = self.directory.take()
                && matches!(origin, Origin::Directory(_))
            {
                self.gitops.repositories.forget(&self.name).await;
            }
            let directory: Box<dyn Directory> = match origin {
                Origin::Directory(path) => self.gitops.files.open(Path::new(path)),
                Origin::Git(git, interval) => {
                    Box::new(self.gitops.repositories.follow(&self.name, git, *interval).await)
                }
            };
            self.directory = Some((origin.clone(), directory));
        }
        let Some((_, directory)) = &mut self.directory else { unreachable!("it was opened right above") };
        directory.request(self.request.as_deref());
        loop {
            let listing = directory.read(&self.beside).await;
            let loaded = LastRead::load(&mut self.last, &listing, self.gitops.registry.kinds());
            let known = loaded.beside.is_subset(&self.beside);
            // Grows by every round and is bounded by what files can name; afterwards it is what they do name.
            match known {
                true => self.beside.clone_from(&loaded.beside),
                false => self.beside.extend(loaded.beside.iter().cloned()),
            }
            if known || listing.root.is_err() {
                return (listing, loaded);
            }
        }
    }

    fn revisions<'a>(&self, source: &'a Source) -> Revisions<'a> {
        Revisions { objects: self.objects(), source }
    }

    /// Keeps what was applied as a revision, if it came from files and is not the last one, and lets go of old ones.
    async fn remember(&mut self, source: &Source, loaded: &LoadedFiles, read: &mut Read) -> ApiResult<()> {
        let before = source.status.as_ref();
        let known = before.is_some_and(|b| b.revision.is_some() && b.applied_revision.as_ref() == Some(&read.revision));
        if read.pinned.is_none() && !known && self.unkept.as_ref() != Some(&read.revision) {
            let commit = self.git.as_ref().and_then(|known| known.commit.clone());
            let subject = commit.as_ref().map(|commit| commit.subject.clone()).filter(|subject| !subject.is_empty());
            let cause = SourceRevisionCause { commit: commit.map(|commit| commit.id), subject, changes: Vec::new() };
            let kept = self.revisions(source).record(loaded, cause, self.gitops.clock.now()).await?;
            read.number = match kept {
                Kept::As(number) => Some(number),
                Kept::Not(why) => {
                    self.unkept = Some(read.revision.clone());
                    let message = format!("what was applied now cannot be had back later: {why}");
                    warn!(source = %self.name, %message, "no revision is kept");
                    self.tell(source, Note::warning(SourceReason::RevisionNotKept.as_str(), "Record", message));
                    None
                }
            };
        } else if read.pinned.is_none() && !known {
            read.number = None;
        }
        let tidy = Some((source.metadata.generation, read.number));
        if self.tidied != tidy {
            self.revisions(source).tidy().await?;
            self.tidied = tidy;
        }
        Ok(())
    }

    /// Of what will be made anew the former uid is forgotten first. A crash, or a change of the files, may keep the new one from
    /// being noted; then the fields tell whose it is.
    async fn forget_the_gone(&self, loaded: &LoadedFiles, plan: &mut Plan) {
        let wished: BTreeSet<_> = loaded.documents.iter().map(|document| &document.id).collect();
        let registry = &self.gitops.registry;
        for entry in plan.inventory.iter_mut().filter(|entry| entry.uid.is_some()) {
            let id = ObjectId::of(entry);
            let Some(kind) = kind_of(registry, &id, None).filter(|_| wished.contains(&id)) else { continue };
            let there = registry.get(&kind, &name_of(&id)).await.ok();
            entry.uid =
                entry.uid.take().filter(|uid| there.is_some_and(|v| lasting_uid(&v.object).as_ref() == Some(uid)));
        }
    }

    /// Stored before anything is applied.
    async fn remember_inventory(&self, source: &Source, before: &SourceStatus, plan: &Plan) -> ApiResult<Source> {
        if before.inventory == plan.inventory {
            return Ok(source.clone());
        }
        let inventory = plan.inventory.clone();
        self.write(source, SourceStatus { inventory, ..before.clone() }).await
    }

    async fn apply(&mut self, loaded: &LoadedFiles) -> Applies {
        let mut out = Applies::default();
        for document in &loaded.documents {
            if let Some(last) = self.applied.get_mut(&document.id)
                && last.stands(&self.gitops.registry, document).await
            {
                out.done += 1;
                continue;
            }
            match apply_document(&self.gitops.registry, document, false).await {
                Ok(applied) => {
                    out.done += 1;
                    out.new_kinds |= applied.written.created && order(&document.id) == 1;
                    self.tell_drift(document, &applied);
                    let (wish, version) = (document.object.clone(), applied.written.version);
                    self.applied.insert(document.id.clone(), Remembered { wish, kind: applied.kind, version });
                }
                Err(error) => {
                    out.server_failed |= is_servers(&error);
                    out.errors.extend(file_errors(document, &error));
                }
            }
        }
        self.applied.retain(|id, _| loaded.documents.iter().any(|document| document.id == *id));
        out
    }

    /// The status, compared on the revision that was read. Nobody else writes it; a change of the rest is read again.
    async fn write(&self, source: &Source, status: SourceStatus) -> ApiResult<Source> {
        if source.status.as_ref() == Some(&status) {
            return Ok(source.clone());
        }
        let mut source = source.clone();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let wished = Source { status: Some(status.clone()), ..source.clone() };
            match self.objects().update_status(wished).await {
                Ok(stored) => return Ok((*stored).clone()),
                Err(error) if error.reason == Reason::Conflict && attempts < STATUS_ATTEMPTS => {
                    let again = self.source().await?.filter(|again| again.uid() == source.uid());
                    source = again.ok_or(error)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Applies {
    done: usize,
    errors: Vec<FileError>,
    server_failed: bool,
    new_kinds: bool,
}

/// Not a mistake in a file.
fn is_servers(error: &ApiError) -> bool {
    error.code() >= 500 || matches!(error.reason, Reason::TooManyRequests | Reason::Conflict)
}
