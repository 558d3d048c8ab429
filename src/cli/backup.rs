//! `gaia backup`, `gaia restore`, `gaia recover`: every object into a file, a data directory out of it, or out of a damaged one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use axum::http::Request;
use clap::Args;

use super::{
    CliError, Outcome,
    error::while_,
    session::{ServerArgs, Session, block_on},
};
use crate::app::backup::{self, Backup};

/// What lies beside the objects in files of its own, and may be larger than all of them.
const LEFT_OUT: &str =
    "not in it: results and artifacts of tasks, and the history of calls to droplets; copy their directories as well";

#[derive(Debug, Args)]
#[command(
    after_help = "Every object is in it: tasks with how they ended, too. The files of their results (results/ in the data \
directory, or ORCHESTRATOR_RESULTS_DIR) and the history of calls to droplets are not. The server goes on while it is made, and \
writers do not wait. The file holds secrets; only its owner may read it. Example: gaia backup /backups/gaia-$(date +%F).backup"
)]
pub struct BackupArgs {
    /// File to write, replaced once the backup is whole and verified; `-` is standard output
    file: PathBuf,
    /// Read this data directory of a stopped server instead of asking a server
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Nothing is done unless the whole backup is read and found right, and the directory is empty. \
Containers are not touched; the server that is started on the directory compares them with the restored objects. Clients that \
watched are told 410 (Expired) and list again.")]
pub struct RestoreArgs {
    /// The backup; a gaia.db copied from a stopped server with its -wal beside it will do; `-` is standard input
    file: PathBuf,
    /// Directory to restore into, empty or missing
    #[arg(long, visible_alias = "data", env = "GAIA_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(
    after_help = "For a data directory that gaia serve refuses as damaged. Damaged rows are mended from their other copy; \
what the journal had behind a damage is lost, and said so. The damaged files are kept in a directory beside. Where objects are \
lost, a backup is better: nothing is done without --leave-out-damaged."
)]
pub struct RecoverArgs {
    /// The damaged directory
    #[arg(long, visible_alias = "data", env = "GAIA_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Only say what would come of it
    #[arg(long)]
    dry_run: bool,
    /// Go on without objects of which no whole copy is left
    #[arg(long)]
    leave_out_damaged: bool,
}

pub fn run(args: &BackupArgs, out: &mut dyn Write) -> Outcome {
    if is_stdio(&args.file) && io::stdout().is_terminal() {
        return Err(CliError::Usage("a backup is no text for a terminal: name a file".into()));
    }
    let made = match &args.data_dir {
        Some(directory) => backup::of_directory(directory)?,
        None => backup::verified(block_on(fetch(&args.server))?)?,
    };
    let told = format!("backed up {} objects of resourceVersion {}", made.objects, made.revision);
    if is_stdio(&args.file) {
        out.write_all(&made.bytes)?;
        eprintln!("{told}\n{LEFT_OUT}");
    } else {
        write_whole(&args.file, &made).map_err(CliError::file(format!("cannot write {}", args.file.display())))?;
        writeln!(out, "{told} to {}\n{LEFT_OUT}", args.file.display())?;
    }
    Ok(0)
}

pub fn restore(args: &RestoreArgs, out: &mut dyn Write) -> Outcome {
    let restored = if is_stdio(&args.file) {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map_err(CliError::file("cannot read standard input"))?;
        backup::restore_bytes(&bytes, &args.data_dir)?
    } else {
        backup::restore_file(&args.file, &args.data_dir)?
    };
    writeln!(
        out,
        "restored {} objects of resourceVersion {} into {}; it goes on at {}",
        restored.objects,
        restored.backup,
        args.data_dir.display(),
        restored.revision
    )?;
    Ok(0)
}

pub fn recover(args: &RecoverArgs, out: &mut dyn Write) -> Outcome {
    let directory = args.data_dir.display();
    let Some(recovery) = backup::recover(&args.data_dir, args.leave_out_damaged, args.dry_run)? else {
        writeln!(out, "nothing is damaged in {directory}")?;
        return Ok(0);
    };
    let done = if args.dry_run { "would recover" } else { "recovered" };
    writeln!(out, "{done} {} objects in {directory} as of resourceVersion {}", recovery.objects, recovery.revision)?;
    for loss in &recovery.losses {
        writeln!(out, "lost: {loss}")?;
    }
    if recovery.losses.is_empty() {
        writeln!(out, "lost: nothing but the history, from which watches resume; clients list again")?;
    }
    if !args.dry_run {
        writeln!(out, "it goes on at {}; the damaged files are in {}", recovery.goes_on_at, recovery.kept.display())?;
    }
    Ok(0)
}

async fn fetch(server: &ServerArgs) -> Result<Vec<u8>, CliError> {
    let request = Request::get("/backup").body(Vec::new()).expect("a constant path makes a request");
    let answer = Session::connect(server)?.fetch(request).await;
    Ok(answer.map_err(while_("cannot make a backup"))?.to_vec())
}

/// Whole and on the disk before it has its name: an earlier backup is there until this one is.
fn write_whole(path: &Path, made: &Backup) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut partial = name.to_owned();
    partial.push(".partial");
    let partial = path.with_file_name(partial);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&made.bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    };
    write().inspect_err(|_| {
        fs::remove_file(&partial).ok();
    })
}

fn is_stdio(path: &Path) -> bool {
    path == Path::new("-")
}
