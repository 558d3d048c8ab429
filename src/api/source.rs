//! `Source`: a directory or a git repository of desired files, and what became of it.

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
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.git.url"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.files"),
    printcolumn(name = "Objects", type_ = "integer", json_path = ".status.objects"),
    printcolumn(name = "Commit", type_ = "string", json_path = ".status.git.appliedCommit", priority = 1),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Pin", type_ = "integer", json_path = ".spec.pin", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.directory) != has(self.git)").message("exactly one of directory and git must be given"),
    validation = Rule::new("!has(self.directory) || self.directory.startsWith('/')").message("must be an absolute path").field_path(".directory")
)]
pub struct SourceSpec {
    /// Absolute path of a directory of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub directory: Option<String>,
    /// A git repository, of which one commit is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Delete what the files no longer name. Never while a file cannot be read or a document is invalid.
    #[serde(default = "yes")]
    pub prune: bool,
    /// Read nothing, change nothing.
    #[serde(default)]
    pub suspend: bool,
    /// Of a directory: seconds between full scans; changes are seen at once by notification. Of a git repository: seconds
    /// between fetches.
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

/// Where in which repository. Of branch, tag and commit at most one; none: the branch that the repository's HEAD names.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.branch), has(self.tag), has(self.commit)].filter(given, given).size() <= 1").message("at most one of branch, tag and commit may be given"),
    validation = Rule::new("self.url.matches('^(https|ssh)://[^/]+/|^file:///|^http://([^/@]*@)?(localhost|127[.][0-9.]+|\\\\[::1\\\\])(:[0-9]+)?/')").message("must be an https:// or ssh:// URL, or one of this host: file:///… or http://127.0.0.1/…").field_path(".url"),
    validation = Rule::new("!self.url.matches('^(https?|file)://[^/]*@|^ssh://[^/@]*:[^/@]*@')").message("must hold no password, and no user name but for ssh://: they belong into credentials").field_path(".url"),
    validation = Rule::new("!self.url.matches('[?#[:space:]]')").message("must hold no query, fragment or blank").field_path(".url"),
    validation = Rule::new("!has(self.path) || !self.path.matches('^/|(^|/)[.][.]?(/|$)')").message("must be relative to the root of the repository, without . and ..").field_path(".path"),
    validation = Rule::new("!has(self.credentials) || !self.url.startsWith('file:')").message("a repository of this host takes none").field_path(".credentials"),
    validation = Rule::new("!has(self.caFile) || self.url.startsWith('https:')").message("is for https:// only").field_path(".caFile"),
    validation = Rule::new("!has(self.caFile) || self.caFile.startsWith('/')").message("must be an absolute path").field_path(".caFile")
)]
pub struct GitSource {
    /// `https://git.example.org/infra/hosts.git`. `ssh://` needs the program `ssh` on this host, `file://` needs `git`.
    #[schemars(length(min = 1, max = 2000))]
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 250), regex(pattern = r"^[^\x00-\x20\x7f~^:?*\[\\]+$"))]
    pub branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 250), regex(pattern = r"^[^\x00-\x20\x7f~^:?*\[\\]+$"))]
    pub tag: Option<String>,
    /// Exactly this one. The server must hand out commits by their id, as those of the large hosters do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{40}$"))]
    pub commit: Option<String>,
    /// The directory whose files count; absent: all of the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<GitCredentials>,
    /// For https: a file of this host with certificates (PEM) of authorities that this server may be vouched for by, beside those that
    /// the host trusts. Read at every fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Seconds that one fetch may take.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: u32,
}

/// Who we are to the server. They are read at every fetch, and told to nobody else.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.file.startsWith('/')").message("must be an absolute path").field_path(".file"),
    validation = Rule::new("!has(self.knownHostsFile) || self.knownHostsFile.startsWith('/')").message("must be an absolute path").field_path(".knownHostsFile")
)]
pub struct GitCredentials {
    /// For http(s): `git` if absent. For ssh it is in the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file of this host. For http(s) its first line is the password or token; for ssh it is the private key.
    pub file: String,
    /// For ssh: the keys of servers, and only these count; absent: those that this user knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts_file: Option<String>,
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
    /// Of a git repository: how far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitStatus>,
    /// Which directory it was (device and inode, or URL and path) when it last had files. Another one that is empty is not
    /// believed.
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

/// Commits as 40 hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitStatus {
    /// What the last fetch that went well found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_commit: Option<String>,
    /// The first line of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The last commit of which everything was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_commit: Option<String>,
    /// When `observedCommit` was fetched. A fetch that finds the same again writes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fetch_time: Option<Time>,
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
    /// Where the document of an entry is: `/etc/gaia/desired/stack/core.yaml:12`.
    pub fn place_of(&self, entry: &InventoryEntry) -> String {
        let place = format!("{}/{}", self.place(), entry.file);
        match self.spec.pin {
            Some(revision) => format!("revision {revision} ({place})"),
            None => place,
        }
    }

    /// The directory, or the repository with the path in it: `https://git.example.org/hosts.git//gpu1`.
    pub fn place(&self) -> String {
        let of_git = |git: &GitSource| match git.path.as_deref().map(|path| path.trim_matches('/')) {
            None | Some("") => format!("{}/", git.url.trim_end_matches('/')),
            Some(path) => format!("{}//{path}", git.url.trim_end_matches('/')),
        };
        let directory = self.spec.directory.as_deref().unwrap_or_default().trim_end_matches('/');
        self.spec.git.as_ref().map_or_else(|| directory.to_owned(), of_git)
    }

    /// What the annotation that asks for a pass says.
    pub fn request(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(super::annotation::RECONCILE_AT).map(String::as_str)
    }
}

/// The condition that is there while `spec.pin` holds.
pub const PINNED: &str = "Pinned";
/// The condition of a git repository: whether the last fetch went well.
pub const FETCHED: &str = "Fetched";

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
    /// The repository is being fetched for the first time.
    Fetching,
    /// The last fetch went well.
    Fetched,
    /// The repository cannot be had now. What was applied is kept.
    FetchFailed,
    /// The server does not accept the credentials, or asks for some.
    AuthenticationFailed,
    /// The repository has no such branch, tag or commit.
    NoSuchRef,
    /// The commit has no such directory.
    PathNotFound,
    /// The list of its objects does not fit into the Source: they are to be divided among several. Nothing is deleted.
    TooManyObjects,
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
