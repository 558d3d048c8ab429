//! `gaia watch`: one line for every object there is, then one for every change, until interrupted.

use std::{io::Write, time::Duration};

use clap::{Args, ValueEnum};
use futures::TryStreamExt;
use kube::core::{WatchEvent, params::WatchParams};
use serde_json::{Value, json};

use super::{
    CliError, Outcome,
    catalogue::Catalogue,
    error::while_,
    get::{PickArgs, parse_table},
    session::{ServerArgs, Session},
    table::{self, Column, Row},
    target::{self, ScopeArgs, Target},
};

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// A kind, or one object as `kind name` or `kind/name`
    #[arg(required = true, value_name = "KIND [NAME] | KIND/NAME")]
    target: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    pick: PickArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Leave out the objects that are there already
    #[arg(long)]
    only_changes: bool,
    /// End, successfully, after this long
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// `MODIFIED workload.gaia.dev/web Ready=True …`
    #[default]
    Line,
    /// One JSON object a line: type, kind, namespace, name, columns
    Json,
}

pub async fn run(args: WatchArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let catalogue = Catalogue::fetch(&session).await?;
    let targets = target::parse(&args.target, &catalogue)?;
    let [target] = targets.as_slice() else {
        return Err(CliError::Usage("one kind, or one object, can be watched at a time".into()));
    };
    let follow = follow(&session, target, &args, out);
    match args.timeout {
        None => follow.await,
        Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), follow).await.unwrap_or(Ok(0)),
    }
}

/// Lists, then watches from there; a watch that ends is resumed where it stood, and begun anew when its place in the log
/// is gone.
async fn follow(session: &Session, target: &Target, args: &WatchArgs, out: &mut dyn Write) -> Outcome {
    let requests = target.kind.request(args.scope.namespace()?);
    let pick = pick(&args.pick, target);
    let mut lines = Lines { target, columns: Vec::new(), output: args.output };
    let mut quiet = args.only_changes;
    loop {
        let list = requests.list(&pick.params()).map_err(|e| CliError::Usage(e.to_string()))?;
        let list = session.ask_table(list).await.map_err(while_(format!("cannot list {target}")))?;
        let list = parse_table(list, target)?;
        lines.columns = list.column_definitions;
        if !quiet {
            lines.write("ADDED", &list.rows, out)?;
        }
        quiet = false;
        let mut position = list.metadata.resource_version;
        while let End::Closed = changes(session, &requests, &pick, &mut position, &lines, out).await? {}
        eprintln!("# the server no longer remembers this far back: all objects again");
    }
}

/// How one watch ended.
enum End {
    /// As every watch does after some minutes.
    Closed,
    /// Its place in the log is gone.
    Expired,
}

/// One watch from `position`, which moves with it.
async fn changes(
    session: &Session,
    requests: &kube::core::Request,
    pick: &PickArgs,
    position: &mut String,
    lines: &Lines<'_>,
    out: &mut dyn Write,
) -> Result<End, CliError> {
    let doing = || while_(format!("cannot watch {}", lines.target));
    let params = WatchParams {
        label_selector: pick.selector.clone(),
        field_selector: pick.field_selector.clone(),
        bookmarks: true,
        ..WatchParams::default()
    };
    let request = requests.watch(&params, position).map_err(|e| CliError::Usage(e.to_string()))?;
    let mut events = session.watch_tables(request).await.map_err(doing())?;
    while let Some(event) = events.try_next().await.map_err(|e| doing()(session.refused(e)))? {
        let (type_, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark(bookmark) => {
                *position = bookmark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) if status.code == 410 => return Ok(End::Expired),
            WatchEvent::Error(status) => return Err(doing()(session.refused(kube::Error::Api(status)))),
        };
        let table = parse_table(object, lines.target)?;
        if let Some(version) = table.rows.last().and_then(|row| row.object["metadata"]["resourceVersion"].as_str()) {
            version.clone_into(position);
        }
        lines.write(type_, &table.rows, out)?;
    }
    Ok(End::Closed)
}

fn pick(pick: &PickArgs, target: &Target) -> PickArgs {
    let mut pick = pick.clone();
    if let Some(name) = &target.name {
        let only_this = format!("metadata.name={name}");
        pick.field_selector = Some(match pick.field_selector {
            Some(others) => format!("{others},{only_this}"),
            None => only_this,
        });
    }
    pick
}

struct Lines<'a> {
    target: &'a Target,
    columns: Vec<Column>,
    output: Output,
}

impl Lines<'_> {
    fn write(&self, type_: &str, rows: &[Row], out: &mut dyn Write) -> Result<(), CliError> {
        for row in rows {
            match self.output {
                Output::Line => writeln!(out, "{}", self.line(type_, row))?,
                Output::Json => writeln!(out, "{}", self.json(type_, row))?,
            }
        }
        // Each change is told when it happens, also into a pipe.
        Ok(out.flush()?)
    }

    fn line(&self, type_: &str, row: &Row) -> String {
        let within = row.namespace().map(|n| format!("{n}/")).unwrap_or_default();
        let mut line = format!("{type_:<8} {}/{within}{}", self.target.kind, row.name());
        for (name, cell) in self.cells(row) {
            let text = table::text(cell);
            match text.contains(' ') {
                true => line.push_str(&format!(" {name}={text:?}")),
                false => line.push_str(&format!(" {name}={text}")),
            }
        }
        line
    }

    fn json(&self, type_: &str, row: &Row) -> Value {
        let columns: serde_json::Map<_, _> = self.cells(row).map(|(n, cell)| (n.to_owned(), cell.clone())).collect();
        json!({"type": type_, "kind": self.target.kind.api.kind, "namespace": row.namespace(), "name": row.name(), "columns": columns})
    }

    /// Every column but the name, which the line begins with.
    fn cells<'r>(&'r self, row: &'r Row) -> impl Iterator<Item = (&'r str, &'r Value)> {
        let shown = table::shown_columns(&self.columns, false).into_iter();
        shown
            .filter_map(|i| Some((self.columns[i].name.as_str(), row.cells.get(i)?)))
            .filter(|(name, _)| *name != "Name")
    }
}
