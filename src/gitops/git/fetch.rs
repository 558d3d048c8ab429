//! One fetch, on a thread that may block: what a branch, tag or commit is now, and its files into a bare repository of their own.
//!
//! Every commit is fetched into an empty repository, one commit deep, which takes the commit's name once it is whole. So
//! nothing is ever read half-written, a history that was rewritten is no special case, and what is on the disk is bounded by
//! one commit. A commit that is there already is not fetched again.

use std::{
    fs::{self, File},
    io::{self, Read},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use gix::{
    Repository,
    progress::Discard,
    protocol::transport::client::blocking_io::http,
    remote::{
        Direction,
        fetch::{Shallow, Tags},
    },
};

use crate::api::source::{GitSource, SourceReason};

/// Where the fetched commit stands in its repository.
const WANTED: &str = "refs/gaia/wanted";
/// A token or a password; more is some other file.
const MOST_CREDENTIAL_BYTES: u64 = 64 << 10;
/// All authorities that browsers know are a fifth of it.
const MOST_AUTHORITY_BYTES: u64 = 1 << 20;
/// The first line of a commit's message, as far as it is told.
const MOST_SUBJECT_CHARS: usize = 200;

/// A commit whose files are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// 40 hexadecimal digits.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
}

/// Why the repository could not be had: a reason of [`SourceReason`], and words that hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: SourceReason,
    pub message: String,
}

/// What is to be fetched, and where to.
#[derive(Debug, Clone)]
pub struct Job {
    pub git: GitSource,
    /// Holds one repository a commit.
    pub directory: PathBuf,
    /// Tells its files from those of a fetch before it that has not ended yet.
    pub number: u64,
    /// Of one answer of the server.
    pub timeout: Duration,
}

impl Job {
    /// Where it puts what is not whole yet.
    pub fn incoming(&self) -> PathBuf {
        self.directory.join(format!("incoming-{}", self.number))
    }
}

/// Fetches, unless what is there is what is wanted. `interrupt` ends it soon after it is set.
pub fn fetch(job: &Job, interrupt: &AtomicBool) -> Result<Commit, Failure> {
    let fail = |message: String| Failure { reason: SourceReason::FetchFailed, message };
    // Over ssh it is a key, and the program's to read.
    let file = job.git.credentials.as_ref().filter(|_| ssh_command(&job.git).is_none()).map(|given| &given.file);
    let credential = file.map(|file| read_credential(file)).transpose();
    let credential = credential.map_err(|message| Failure { reason: SourceReason::AuthenticationFailed, message })?;
    let incoming = job.incoming();
    let authorities = job.git.ca_file.as_deref().map(read_authorities).transpose().map_err(fail)?.unwrap_or_default();
    let made = fs::create_dir_all(&job.directory);
    made.map_err(|error| fail(format!("cannot write to {}: {error}", job.directory.display())))?;
    let known = Known { credential, authorities };
    let fetched = receive(job, known, &incoming, interrupt).map_err(|error| explain(&error, &job.git));
    if fetched.is_err() {
        remove(&incoming).ok();
    }
    let commit = match fetched? {
        Received::Known(commit) => commit,
        // Somebody else may be at it by now.
        Received::New(_) if interrupt.load(Ordering::Relaxed) => {
            remove(&incoming).ok();
            return Err(fail("the fetch was ended".to_owned()));
        }
        Received::New(commit) => {
            let place = job.directory.join(&commit.id);
            // There may be a damaged one.
            let placed = remove(&place).and_then(|()| fs::rename(&incoming, &place));
            placed.map_err(|error| fail(format!("cannot write to {}: {error}", place.display())))?;
            commit
        }
    };
    // What cannot be removed is in nobody's way, and is tried again with the next fetch.
    keep_only(&job.directory, Some(&commit.id)).ok();
    Ok(commit)
}

/// What was read from files of this host.
struct Known {
    credential: Option<String>,
    authorities: Vec<reqwest::Certificate>,
}

enum Received {
    Known(Commit),
    New(Commit),
}

fn receive(job: &Job, known: Known, incoming: &Path, interrupt: &AtomicBool) -> gix::Result<Received> {
    let git = &job.git;
    let options = options(git);
    let repository = gix::ThreadSafeRepository::init_opts(
        incoming,
        gix::create::Kind::Bare,
        gix::create::Options::default(),
        options,
    )?
    .to_thread_local();
    let remote = repository.remote_at(git.url.as_str())?.with_fetch_tags(Tags::None);
    let remote = remote.with_refspecs([refspec(git).as_str()], Direction::Fetch)?;
    let mut connection = remote.connect(Direction::Fetch)?;
    // Asked once the server refuses what we sent of ourselves. Nobody else is asked: no helper of the host, no terminal.
    connection.set_credentials(|_| Ok(None));
    if let Some(options) = http_options(&repository, git, known, job.timeout)? {
        connection.set_transport_options(options);
    }
    let prepared = connection.prepare_fetch(Discard, gix::remote::ref_map::Options::default())?;
    let there = prepared.ref_map().mappings.first().and_then(|mapping| {
        let id = mapping.remote.peeled_id()?.to_string();
        subject_of(&open(&job.directory, &id).ok()?, &id).ok()
    });
    if let Some(commit) = there {
        return Ok(Received::Known(commit));
    }
    let outcome = prepared.with_shallow(Shallow::DepthAtRemote(NonZeroU32::MIN)).receive(Discard, interrupt)?;
    drop(outcome);
    let id = repository.find_reference(WANTED)?.into_fully_peeled_id()?;
    let id = repository.find_object(id)?.peel_to_commit()?.id.to_string();
    subject_of(&repository, &id).map(Received::New)
}

/// The repository of a commit.
pub fn open(directory: &Path, commit: &str) -> gix::Result<Repository> {
    let place = directory.join(commit);
    Ok(gix::open::Options::isolated().open_path_as_is(true).open(place)?.to_thread_local())
}

/// The commit, told.
pub fn subject_of(repository: &Repository, id: &str) -> gix::Result<Commit> {
    let commit = repository.find_commit(gix::ObjectId::from_hex(id.as_bytes())?)?;
    let title = String::from_utf8_lossy(commit.message()?.title.as_ref()).trim().to_owned();
    let subject = title.chars().filter(|c| !c.is_control()).take(MOST_SUBJECT_CHARS).collect();
    Ok(Commit { id: id.to_owned(), subject })
}

/// Nothing of this host's git configuration or environment counts.
fn options(git: &GitSource) -> gix::open::Options {
    let command = ssh_command(git).map(|command| format!("core.sshCommand={command}"));
    gix::open::Options::isolated().config_overrides(command)
}

/// Of the program that carries `ssh://`.
fn ssh_command(git: &GitSource) -> Option<String> {
    git.url.starts_with("ssh://").then(|| {
        let mut command = SSH.to_owned();
        if let Some(credentials) = &git.credentials {
            command.push_str(&format!(" -o IdentitiesOnly=yes -i {}", quoted(&credentials.file)));
            if let Some(known_hosts) = &credentials.known_hosts_file {
                let known_hosts = quoted(known_hosts);
                command.push_str(&format!(" -o GlobalKnownHostsFile=none -o UserKnownHostsFile={known_hosts}"));
            }
        }
        command
    })
}

/// Never asks, never waits for ever, trusts no host that it does not know.
const SSH: &str = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=20 -o ServerAliveInterval=10 \
                   -o ServerAliveCountMax=3";

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn refspec(git: &GitSource) -> String {
    let source = match (&git.branch, &git.tag, &git.commit) {
        (Some(branch), _, _) => format!("refs/heads/{branch}"),
        (None, Some(tag), _) => format!("refs/tags/{tag}"),
        (None, None, Some(commit)) => commit.clone(),
        (None, None, None) => "HEAD".to_owned(),
    };
    format!("+{source}:{WANTED}")
}

/// `None`: it is not reached over HTTP.
fn http_options(
    repository: &Repository,
    git: &GitSource,
    Known { credential, authorities }: Known,
    timeout: Duration,
) -> gix::Result<Option<Box<dyn std::any::Any>>> {
    let url: &gix::bstr::BStr = git.url.as_str().into();
    let Some(options) = repository.transport_options(url, None)? else { return Ok(None) };
    let Ok(mut options) = options.downcast::<http::Options>() else { return Ok(None) };
    let authorization = credential.map(|password| {
        let user = git.credentials.as_ref().and_then(|c| c.username.as_deref()).unwrap_or("git");
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    });
    // Sent along with every request, so also over http:// of this host. A redirect is refused then: it could lead to others.
    let configure_request = authorization.map(|authorization| -> Box<http::reqwest::ConfigureRequestFn> {
        Box::new(move |request| {
            // A value that no header can hold is refused by the server, as any wrong one.
            if let Ok(mut value) = reqwest::header::HeaderValue::from_str(&authorization) {
                value.set_sensitive(true);
                request.headers_mut().insert(reqwest::header::AUTHORIZATION, value);
            }
            Ok(())
        })
    });
    // As for every client of ours; reqwest has no provider of its own.
    rustls::crypto::ring::default_provider().install_default().ok();
    let configure_client: Box<http::reqwest::ConfigureClientFn> = Box::new(move |client| {
        let client = client.timeout(timeout);
        Ok(if authorities.is_empty() { client } else { client.tls_certs_merge(authorities.clone()) })
    });
    let backend = http::reqwest::Options { configure_client: Some(configure_client), configure_request };
    options.backend = Some(Arc::new(Mutex::new(backend)));
    Ok(Some(options))
}

/// A file's first line.
fn read_credential(file: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(file).and_then(|f| f.take(MOST_CREDENTIAL_BYTES).read_to_string(&mut text));
    read.map_err(|error| format!("credentials.file {file} cannot be read: {error}"))?;
    match text.lines().next().map(str::trim_end) {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(format!("credentials.file {file} is empty")),
    }
}

fn read_authorities(file: &str) -> Result<Vec<reqwest::Certificate>, String> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|f| f.take(MOST_AUTHORITY_BYTES).read_to_end(&mut text));
    read.map_err(|error| format!("caFile {file} cannot be read: {error}"))?;
    let found = reqwest::Certificate::from_pem_bundle(&text);
    let found = found.map_err(|error| format!("caFile {file} holds no certificates that can be read: {error}"))?;
    if found.is_empty() { Err(format!("caFile {file} holds no certificate in PEM")) } else { Ok(found) }
}

/// In the words of who wrote the Source. The chain of errors names URLs and paths, and no credential: we never gave it one.
fn explain(error: &gix::Error, git: &GitSource) -> Failure {
    let chain = chain(error);
    let wanted = match (&git.branch, &git.tag, &git.commit) {
        (Some(branch), _, _) => format!("no branch {branch}"),
        (None, Some(tag), _) => format!("no tag {tag}"),
        (None, None, Some(commit)) => format!("no commit {commit}"),
        (None, None, None) => "no HEAD: it is empty".to_owned(),
    };
    let ssh = ssh_command(git).is_some();
    let (reason, message) = if chain.contains("matched any of") || chain.contains("not our ref") {
        (SourceReason::NoSuchRef, format!("{} has {wanted}", git.url))
    } else if error.is_unauthenticated()
        || ssh && chain.contains("Permission denied")
        || chain.contains("HTTP status 401")
        || chain.contains("HTTP status 403")
    {
        let why = match &git.credentials {
            Some(credentials) => format!("does not accept what credentials.file {} holds", credentials.file),
            None => "asks for credentials, and the Source has none".to_owned(),
        };
        (SourceReason::AuthenticationFailed, format!("{} {why}", git.url))
    } else if chain.contains("HTTP status 404") {
        (
            SourceReason::FetchFailed,
            format!("there is no repository at {} (or it is hidden from who may not see it)", git.url),
        )
    } else {
        // The program says on its own what is wrong with the server's key, for one.
        let program = if ssh { "; what ssh said of it is in gaia's log" } else { "" };
        (SourceReason::FetchFailed, format!("{} cannot be fetched: {chain}{program}", git.url))
    };
    Failure { reason, message }
}

fn chain(error: &gix::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Wrappers repeat what they wrap.
        if !words.iter().any(|word| word.contains(&text)) {
            words.push(text);
        }
        next = error.source();
    }
    words.join(": ")
}

/// Removes every repository but this commit's.
pub fn keep_only(directory: &Path, commit: Option<&str>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if commit.is_none_or(|commit| entry.file_name() != commit) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A directory and all in it, if it is there.
pub fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::api::source::GitCredentials;

    #[rstest]
    #[case::the_branch_of_head(GitSource::default(), "+HEAD:refs/gaia/wanted")]
    #[case::a_branch(GitSource { branch: Some("a/b".into()), ..GitSource::default() }, "+refs/heads/a/b:refs/gaia/wanted")]
    #[case::a_tag(GitSource { tag: Some("v1".into()), ..GitSource::default() }, "+refs/tags/v1:refs/gaia/wanted")]
    #[case::a_commit(GitSource { commit: Some("0f".repeat(20)), ..GitSource::default() }, "+0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f:refs/gaia/wanted")]
    fn what_is_asked_for(#[case] git: GitSource, #[case] expected: &str) {
        assert_eq!(refspec(&git), expected);
    }

    #[test]
    fn ssh_takes_the_key_of_the_source_and_nothing_of_the_host() {
        let credentials = GitCredentials {
            file: "/etc/gaia/it's a key".to_owned(),
            known_hosts_file: Some("/etc/gaia/hosts".to_owned()),
            username: None,
        };
        let git = GitSource { url: "ssh://git@h/r.git".into(), credentials: Some(credentials), ..GitSource::default() };
        let command = ssh_command(&git).expect("it is ssh");
        assert!(command.starts_with("ssh -o BatchMode=yes -o StrictHostKeyChecking=yes "), "{command}");
        assert!(
            command.ends_with(
                r"-o IdentitiesOnly=yes -i '/etc/gaia/it'\''s a key' -o GlobalKnownHostsFile=none -o UserKnownHostsFile='/etc/gaia/hosts'"
            ),
            "{command}"
        );
        assert_eq!(ssh_command(&GitSource { url: "https://h/r.git".into(), ..git }), None);
    }

    #[rstest]
    #[case::one_line("t0ken\n", Ok("t0ken"))]
    #[case::no_end("t0ken", Ok("t0ken"))]
    #[case::dos("t0ken\r\nmore", Ok("t0ken"))]
    #[case::empty("\nt0ken", Err("is empty"))]
    fn a_credential_is_the_first_line(#[case] text: &str, #[case] expected: Result<&str, &str>) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("token");
        fs::write(&file, text).expect("can be written");
        let read = read_credential(file.to_str().expect("UTF-8"));
        match expected {
            Ok(token) => assert_eq!(read.as_deref(), Ok(token)),
            Err(why) => assert!(read.expect_err("no token").ends_with(why)),
        }
    }
}
