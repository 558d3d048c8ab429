//! `Source`: a directory (later: a git repository) of desired files, and what became of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who owns the fields that files state, in managedFields.
pub const FIELD_MANAGER: &str = "gitops";

/// Where desired state is read from. `gaia serve --desired DIR` keeps one named `desired`. Deleting a Source leaves its
/// objects as they are: nothing keeps them so any longer.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "Source",
    plural = "sources",
    shortname = "src",
    category = "gaia",
    status = "SourceStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Directory", type_ = "string", json_path = ".spec.directory"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.files"),
    printcolumn(name = "Objects", type_ = "integer", json_path = ".status.objects"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Pin", type_ = "integer", json_path = ".spec.pin", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.directory.startsWith('/')").message("must be an absolute path").field_path(".directory"))]
pub struct SourceSpec {
    /// Absolute path of a directory of this host.
    #[schemars(length(min = 1))]
    pub directory: String,
    /// Delete what the files no longer name. Never while a file cannot be read or a document is invalid.
    #[serde(default = "yes")]
    pub prune: bool,
    /// Read nothing, change nothing.
    #[serde(default)]
    pub suspend: bool,
    /// Seconds between full scans; changes are seen at once by notification.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 1))]
    pub interval_seconds: u32,
    /// The SourceRevision to keep the objects at, by its number, whatever the files say; without it they follow the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pin: Option<i64>,
    /// Former revisions that are kept beside the present one, as long as all of them are small enough. Absent: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub revision_history_limit: Option<u32>,
}

fn yes() -> bool {
    true
}

fn default_interval() -> u32 {
    60
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Hash of everything applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<Time>,
    /// The number of the SourceRevision that holds it; absent when it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The value of the annotation `gaia.dev/reconcile-at` that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_request: Option<String>,
    /// Which directory it was (device and inode) when it last had files. Another one that is empty is not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_identity: Option<String>,
    #[serde(default)]
    pub files: u32,
    #[serde(default)]
    pub objects: u32,
    /// Everything this source applied and has not pruned yet; what prune compares with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inventory: Vec<InventoryEntry>,
    /// What is wrong, one entry a place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FileError>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryEntry {
    pub api_version: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    /// Relative to the directory, with the line its document starts on: `stack/core.yaml:12`.
    pub file: String,
    /// Which object of that name; absent until it has been applied. Another one is not ours to delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl Source {
    /// Where on this host the document of an entry is: `/etc/gaia/desired/stack/core.yaml:12`.
    pub fn place_of(&self, entry: &InventoryEntry) -> String {
        let place = format!("{}/{}", self.spec.directory.trim_end_matches('/'), entry.file);
        match self.spec.pin {
            Some(revision) => format!("revision {revision} ({place})"),
            None => place,
        }
    }

    /// What the annotation that asks for a pass says.
    pub fn request(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(super::annotation::RECONCILE_AT).map(String::as_str)
    }
}

/// The condition that is there while `spec.pin` holds.
pub const PINNED: &str = "Pinned";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileError {
    /// Relative to the directory.
    pub file: String,
    /// 1-based.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    pub message: String,
}

/// Why a Source is (not) Ready; also the reason of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
pub enum SourceReason {
    /// Every object is as the files say.
    Applied,
    /// A file, a document or an object in it is wrong. The others are applied, nothing is deleted.
    InvalidFiles,
    /// Nothing is known about the files: nothing is changed.
    DirectoryUnreadable,
    /// No files where there were some, and not certainly the same directory: nothing is deleted.
    EmptyDirectory,
    /// The server did not take an object for a reason that is not the file's.
    ApplyFailed,
    /// `spec.suspend`.
    Suspended,
    /// `spec.pin` holds the objects at a revision.
    Pinned,
    /// `spec.pin` names a revision that is not there, or cannot be read: nothing is changed.
    NoSuchRevision,
    /// What was applied cannot be had back: it is too large to be kept, or its name is.
    RevisionNotKept,
    /// What the files no longer name is being deleted.
    Pruning,
    /// Somebody changed what a file states; it was set back.
    FieldsReverted,
    /// Somebody deleted what a file states; it was made again.
    ObjectRestored,
}

impl SourceReason {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
